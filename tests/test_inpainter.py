"""The pipeline as a whole: known pixels, every intermediate, freezing."""

from __future__ import annotations

import pytest
import torch
from conftest import make_model

from hvq_inpaint import HVQConfig, HVQInpainter, InvalidInputError
from hvq_inpaint.blending import poisson_composite
from hvq_inpaint.inpainter import TRAINING_STAGES


def random_batch(height: int = 32, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator), (
        torch.rand(2, 1, height, width, generator=generator) > 0.4
    ).float()


# ---------------------------------------------------------------- forward


def test_shapes_of_the_paper():
    image, known = torch.rand(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    with torch.inference_mode():
        output = HVQInpainter(HVQConfig.preset("paper")).eval()(image, known)
    shapes = {name: tuple(value.shape) for name, value in vars(output).items()}
    assert shapes == {
        "mid": (1, 128, 64, 64),
        "global_latents": (1, 64, 32, 32),
        "global_quantized": (1, 64, 32, 32),
        "global_codes": (1, 32, 32),
        "local_quantized": (1, 64, 64, 64),
        "local_codes": (1, 64, 64),
        "coarse": (1, 3, 256, 256),
        "refined": (1, 3, 256, 256),
        "composite": (1, 3, 256, 256),
        "credibility": (1, 1, 32, 32),
    }


def test_the_two_halves_are_those_of_the_whole(model):
    image, known = random_batch()
    output = model(image, known)
    mid, global_latents, coarse = model.vq_stage(image, known)
    assert torch.equal(mid, output.mid) and torch.equal(global_latents, output.global_latents)
    assert torch.equal(coarse, output.coarse)
    assert torch.equal(model.refine(coarse, image * known, known), output.refined)


def test_known_pixels_bit_for_bit_and_the_hole_from_the_refiner(model):
    image, known = random_batch()
    output = model(image, known)
    where = known.bool().expand_as(image)
    assert torch.equal(output.composite[where], image[where])
    assert torch.equal(output.composite[~where], output.refined[~where])
    assert output.credibility.min() >= 0 and output.credibility.max() <= 1
    assert torch.equal(
        output.global_quantized, model.vqvae.global_quantizer.codebook[output.global_codes].permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize("blended", [False, True])
def test_the_refiner_gets_the_coarse_result_pasted_or_blended(blended):
    model = make_model(poisson_composite=blended)
    image, known = random_batch()
    seen = {}
    model.refiner.register_forward_pre_hook(lambda _, arguments: seen.update(picture=arguments[0], known=arguments[1]))
    output = model(image, known)
    if blended:
        expected = poisson_composite(output.coarse, image, known)
        assert not torch.equal(expected, torch.where(known.bool(), image, output.coarse))
    else:
        expected = torch.where(known.bool(), image, output.coarse)
    assert torch.equal(seen["picture"], expected) and torch.equal(seen["known"], known)


def test_what_the_mask_hides_has_no_influence(model):
    image, known = random_batch()
    other = torch.where(known.bool(), image, torch.rand_like(image))
    other[(known == 0).expand_as(image)] = float("nan")
    assert torch.equal(model(image, known).composite, model(other, known).composite)


def test_inpainting_never_updates_a_codebook(model):
    image, known = random_batch()
    for training in (True, False):
        before = {name: tensor.clone() for name, tensor in model.vqvae.state_dict().items()}
        model.train(training)(image, known)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.vqvae.state_dict().items())


def test_the_oracle_is_the_autoencoder_in_eval_mode(model):
    image, _ = random_batch()
    assert torch.equal(model.reconstruct(image), model.vqvae(image).reconstruction.clamp(0, 1))


@pytest.mark.parametrize(
    ("damaged", "known", "message"),
    [
        ((2, 3, 30, 48), (2, 1, 30, 48), "multiples of 8"),
        ((2, 3, 32, 48), (2, 1, 32, 32), "known must be"),
        ((2, 4, 32, 48), (2, 1, 32, 48), r"\(B, 3, H, W\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(model, damaged, known, message):
    with pytest.raises(InvalidInputError, match=message):
        model(torch.zeros(damaged), torch.ones(known))


# ---------------------------------------------------------------- freezing


@pytest.mark.parametrize("stage", TRAINING_STAGES)
def test_only_the_stage_s_part_is_trained(model, stage):
    model.set_training_stage(stage)
    model.train()
    parts = {"autoencoder": model.vqvae, "encoder": model.encoder_b1, "refiner": model.refiner}
    for name, part in parts.items():
        assert all(parameter.requires_grad == (name == stage) for parameter in part.parameters())
        assert all(module.training == (name == stage) for module in part.modules())


def test_an_unknown_stage_is_refused(model):
    with pytest.raises(InvalidInputError, match="autoencoder, encoder, refiner"):
        model.set_training_stage("decoder")

"""The hierarchical VQ-VAE: shapes, the two levels, and where its gradients go."""

from __future__ import annotations

import pytest
import torch
from conftest import make_model

from hvq_inpaint import HVQConfig, InvalidInputError
from hvq_inpaint.vqvae import HierarchicalVQVAE


def test_shapes_of_the_paper():
    output = HierarchicalVQVAE(HVQConfig()).eval()(torch.rand(1, 3, 256, 256))
    assert output.mid.shape == (1, 128, 64, 64)
    assert output.global_latents.shape == output.global_quantized.shape == (1, 64, 32, 32)
    assert output.local_latents.shape == output.local_quantized.shape == (1, 64, 64, 64)
    assert output.global_codes.shape == (1, 32, 32) and output.local_codes.shape == (1, 64, 64)
    assert output.reconstruction.shape == (1, 3, 256, 256)


def test_every_weight_gets_a_gradient_from_equation_2():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny")).train()
    image = torch.rand(2, 3, 32, 32)
    output = vqvae(image)
    ((output.reconstruction - image).square().mean() + 0.25 * output.commitment).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vqvae.parameters())


def test_the_warm_up_quantises_nothing_and_leaves_the_codebooks_alone():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny")).train()
    before = vqvae.global_quantizer.codebook.clone()
    reconstruction, global_latents, local_latents = vqvae.forward_continuous(torch.rand(1, 3, 32, 32))
    assert reconstruction.shape == (1, 3, 32, 32)
    assert global_latents.shape == (1, 8, 4, 4) and local_latents.shape == (1, 8, 8, 8)
    assert torch.equal(before, vqvae.global_quantizer.codebook) and not vqvae.local_quantizer.counts.any()


def test_training_updates_both_codebooks_and_eval_neither():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny"))
    for training in (True, False):
        before = [vqvae.global_quantizer.codebook.clone(), vqvae.local_quantizer.codebook.clone()]
        vqvae.train(training)(torch.rand(1, 3, 32, 32))
        after = [vqvae.global_quantizer.codebook, vqvae.local_quantizer.codebook]
        assert [torch.equal(b, a) for b, a in zip(before, after, strict=True)] == [not training] * 2


# ---------------------------------------------------------------- as a tokenizer


@pytest.fixture
def tokenizer() -> HierarchicalVQVAE:
    return make_model().vqvae


@pytest.mark.parametrize("training", [False, True])
def test_codes_are_those_of_the_whole_pass_and_decode_to_its_reconstruction(tokenizer, training):
    image = torch.rand(2, 3, 40, 24)
    expected = tokenizer(image)
    tokenizer.train(training)
    before = {name: tensor.clone() for name, tensor in tokenizer.state_dict().items()}
    codes = tokenizer.encode(image)
    assert torch.equal(codes.global_codes, expected.global_codes) and codes.global_codes.shape == (2, 5, 3)
    assert torch.equal(codes.local_codes, expected.local_codes) and codes.local_codes.shape == (2, 10, 6)
    decoded = tokenizer.decode(codes.global_codes, codes.local_codes)
    assert torch.equal(decoded, expected.reconstruction.clamp(0, 1))
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert all(torch.equal(before[name], tensor) for name, tensor in tokenizer.state_dict().items())


def test_every_code_stands_for_its_vector(tokenizer):
    """Against the codebooks themselves, looked up one by one."""
    generator = torch.Generator().manual_seed(0)
    global_codes = torch.randint(0, 32, (1, 2, 3), generator=generator)
    local_codes = torch.randint(0, 32, (1, 4, 6), generator=generator)
    vectors = []
    for codes, quantizer in ((global_codes, tokenizer.global_quantizer), (local_codes, tokenizer.local_quantizer)):
        rows = [[quantizer.codebook[int(code)] for code in row] for row in codes[0]]
        vectors.append(torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)[None])
    expected = tokenizer.decoder_a(*vectors).clamp(0, 1)
    assert torch.allclose(tokenizer.decode(global_codes, local_codes), expected, atol=1e-6)
    narrow = tokenizer.decode(global_codes.int(), local_codes.int())
    assert torch.equal(narrow, tokenizer.decode(global_codes, local_codes))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 3, 12, 16), (0, 3, 16, 16), (1, 3, 0, 16)])
def test_what_is_no_image_is_refused(tokenizer, shape):
    with pytest.raises(InvalidInputError, match=r"must be \(B, 3, H, W\)"):
        tokenizer.encode(torch.zeros(shape))


@pytest.mark.parametrize(
    ("global_codes", "local_codes", "message"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 4, 4).long(), "integers from 0 to 31"),
        (torch.zeros(1, 2, 2).long(), torch.full((1, 4, 4), 32), "integers from 0 to 31"),
        (torch.full((1, 2, 2), -1), torch.zeros(1, 4, 4).long(), "integers from 0 to 31"),
        (torch.zeros(1, 2, 2).long(), torch.zeros(1, 4, 6).long(), "Global codes must be"),
        (torch.zeros(2, 2).long(), torch.zeros(4, 4).long(), "Global codes must be"),
    ],
)
def test_what_are_no_codes_is_refused(tokenizer, global_codes, local_codes, message):
    with pytest.raises(InvalidInputError, match=message):
        tokenizer.decode(global_codes, local_codes)

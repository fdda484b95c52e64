"""Weights in half the memory: a model whose parameters, and only they, are in bfloat16 or float16."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import make_model, make_pixels
from torch import nn

from hvq_inpaint import HVQInpainter, execution
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.execution import NARROW_DTYPES, check_weights, running_dtype, running_in, weights_dtype
from hvq_inpaint.masks import box_mask, random_walk_mask

CPU, GPU = torch.device("cpu"), torch.device("cuda")

narrow_dtypes = pytest.mark.parametrize("dtype", NARROW_DTYPES, ids=str)


def with_weights_in(model: HVQInpainter, dtype: torch.dtype) -> HVQInpainter:
    """A copy, as `from_pretrained(..., dtype=dtype)` gives it."""
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.data = parameter.data.to(dtype)
    return copy


def rounded(model: HVQInpainter, dtype: torch.dtype) -> HVQInpainter:
    """A copy with the same weights in float32 again."""
    return with_weights_in(with_weights_in(model, dtype), torch.float32)


def example(height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """`damaged` (1, 3, H, W) and `known` (1, 1, H, W)."""
    known = torch.from_numpy(~random_walk_mask(height, width, 0.3, 0))[None, None].float()
    return torch.from_numpy(make_pixels(height, width)).permute(2, 0, 1)[None] / 255 * known, known


@narrow_dtypes
@torch.no_grad()
def test_forward_takes_float32_tensors_and_gives_nearly_the_same(model, dtype):
    damaged, known = example()
    expected, output = model(damaged, known), with_weights_in(model, dtype)(damaged, known)
    assert {tensor.dtype for tensor in vars(output).values()} == {torch.float32, torch.int64}
    is_missing = (known < 0.5).expand_as(damaged)
    assert 0 < (output.composite - expected.composite)[is_missing].abs().mean() * 255 < 1
    assert torch.equal(output.composite[~is_missing], damaged[~is_missing])
    assert (output.credibility - expected.credibility).abs().max() < 0.02


@narrow_dtypes
@pytest.mark.parametrize("cast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("changes", [{}, {"transformer_feedback": False, "harmonic_input": True}], ids=["", "plain"])
@torch.no_grad()
def test_forward_computes_as_with_these_weights_in_float32(dtype, cast, changes):
    """Bit for bit, also under an autocast of the caller to whatever format."""
    model, inputs = make_model(**changes), example()
    with torch.autocast("cpu", cast, enabled=cast is not None):
        expected, output = rounded(model, dtype)(*inputs), with_weights_in(model, dtype)(*inputs)
    for name, tensor in vars(expected).items():
        assert torch.equal(getattr(output, name), tensor), name


@narrow_dtypes
@torch.no_grad()
def test_every_network_takes_them_by_itself(model, dtype):
    damaged, known = example()
    ours, theirs = with_weights_in(model, dtype), rounded(model, dtype)
    pairs = [
        (ours.encoder_b1(damaged, known), theirs.encoder_b1(damaged, known)),
        ((ours.refiner(damaged, known),), (theirs.refiner(damaged, known),)),
        (vars(ours.vqvae(damaged)).values(), vars(theirs.vqvae(damaged)).values()),
        (ours.vqvae.forward_continuous(damaged), theirs.vqvae.forward_continuous(damaged)),
        (ours.vq_stage(damaged, known), theirs.vq_stage(damaged, known)),
        ((ours.reconstruct(damaged),), (theirs.reconstruct(damaged),)),
    ]
    for got, expected in pairs:
        assert all(torch.equal(*both) for both in zip(got, expected, strict=True))


@narrow_dtypes
@torch.no_grad()
def test_images_in_the_format_of_the_weights_are_taken_as_well(model, dtype):
    damaged, known = example()
    expected = model(damaged, known).composite
    composite = with_weights_in(model, dtype)(damaged.to(dtype), known.to(dtype)).composite
    assert (composite - expected).abs().mean() * 255 < 1.5


@narrow_dtypes
@pytest.mark.parametrize("precision", execution.PRECISIONS)
def test_inpaint_fills_nearly_the_same_in_every_precision(model, dtype, precision):
    pixels, mask = make_pixels(50, 70), box_mask(50, 70, 0.3, 0)
    options = {"num_results": 2, "output_type": "numpy"}
    expected = model.inpaint(pixels, mask, precision="float32", **options)
    result = with_weights_in(model, dtype).inpaint(pixels, mask, precision=precision, **options)
    assert 0 < np.abs(result.image.astype(float) - expected.image)[mask].mean() < 2
    for image in result.images:
        assert np.array_equal(image[~mask], pixels[~mask])
    same = rounded(model, dtype).inpaint(pixels, mask, precision=precision, **options)
    for image, other in zip(result.images, same.images, strict=True):
        assert np.array_equal(image, other)
    assert result.main_crop.credibility.dtype == np.float32
    for name in ("global_codes", "local_codes", "credibility"):
        assert np.array_equal(getattr(result.main_crop, name), getattr(same.main_crop, name))


@narrow_dtypes
def test_large_holes_are_refined_in_tiles(model, dtype, monkeypatch):
    monkeypatch.setattr("hvq_inpaint.filling._TILE", 64)
    monkeypatch.setattr("hvq_inpaint.filling._OVERLAP", 16)
    pixels, mask = make_pixels(150, 140), box_mask(150, 140, 0.5, 0)
    images = [
        each.inpaint(pixels, mask, strategy="crop", working_size=64, precision="float32", output_type="numpy").image
        for each in (with_weights_in(model, dtype), rounded(model, dtype))
    ]
    assert np.array_equal(*images)
    assert np.array_equal(images[0][~mask], pixels[~mask])


@narrow_dtypes
@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16], ids=str)
def test_the_device_says_in_what_the_networks_run_and_not_the_weights(model, dtype, fast, monkeypatch):
    """Processors without instructions for bfloat16 and float16 are some 25 times slower at them than at float32."""
    monkeypatch.setattr(execution, "fast_dtype", lambda device: fast)
    model, seen = with_weights_in(model, dtype), []
    model.refiner.blocks.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    for precision in execution.PRECISIONS:
        model.inpaint(make_pixels(16, 16), box_mask(16, 16, 0.3, 0), precision=precision)
    assert seen == [fast, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16], ids=str)
def test_gpus_run_weights_in_float16_so(fast, monkeypatch):
    monkeypatch.setattr(execution, "fast_dtype", lambda device: fast)
    assert running_dtype("auto", GPU, torch.float16) == torch.float16
    for device, weights in ((GPU, torch.bfloat16), (GPU, torch.float32), (CPU, torch.float16)):
        assert running_dtype("auto", device, weights) == fast
    for weights in (torch.float32, *NARROW_DTYPES):
        assert running_dtype("float32", GPU, weights) == torch.float32
        assert running_dtype("bfloat16", GPU, weights) == torch.bfloat16


@narrow_dtypes
@torch.no_grad()
def test_the_networks_run_in_float16(model, dtype):
    """As on a GPU."""
    damaged, known = example()
    expected = model(damaged, known).composite
    with running_in("float16", CPU):
        output = with_weights_in(model, dtype)(damaged, known)
    assert (output.composite - expected).abs().mean() * 255 < 1
    assert output.refined.dtype == output.composite.dtype == torch.float32


@narrow_dtypes
def test_nothing_of_the_model_is_changed(model, dtype):
    model = with_weights_in(model, dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model(*example())
    model.inpaint(make_pixels(32, 32), box_mask(32, 32, 0.3, 0), num_results=2)
    weights = dict(model.named_parameters())
    assert weights_dtype(model) == dtype
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (dtype if name in weights else torch.float32), name
        assert torch.equal(tensor, before[name]), name


@narrow_dtypes
def test_gradients_of_the_input_are_those_of_the_same_weights_in_float32(model, dtype):
    gradients = []
    for each in (with_weights_in(model, dtype), rounded(model, dtype)):
        damaged, known = example()
        each(damaged.requires_grad_(), known).composite.square().sum().backward()
        gradients.append(damaged.grad)
        assert all(parameter.grad.dtype == parameter.dtype for parameter in each.refiner.parameters())
    assert torch.equal(*gradients)


def test_with_float32_weights_nothing_is_done(model, monkeypatch):
    monkeypatch.setattr(execution, "_FittingWeights", None)
    model.train()(*example()).refined.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.refiner.parameters())


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.bfloat16, nn.Module.double])
def test_a_model_that_was_converted_as_a_whole_is_refused(model, convert):
    model, arguments = convert(model), (make_pixels(16, 16), box_mask(16, 16, 0.3, 0))
    for refused in (model.inpaint, model.inpaint_steps):
        with pytest.raises(InvalidInputError, match=r"must be in float32.*dtype=torch\.bfloat16") as caught:
            refused(*arguments)
        assert "\n" not in str(caught.value)


def test_weights_in_float64_are_refused(model):
    with pytest.raises(InvalidInputError, match="only the weights may be in float16 or bfloat16"):
        check_weights(with_weights_in(model, torch.float64))
    for dtype in (torch.float32, *NARROW_DTYPES):
        check_weights(with_weights_in(model, dtype))
    assert weights_dtype(nn.Flatten()) == torch.float32

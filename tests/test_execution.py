"""How the networks are run: the number format by device, and the order in memory."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import make_pixels

from hvq_inpaint.execution import channels_last, fast_dtype, running_in
from hvq_inpaint.masks import box_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("abilities", "dtype"),
    [({}, torch.float32), ({"avx512_f": True, "avx512_bf16": False}, torch.float32)]
    + [({name: True}, torch.bfloat16) for name in ("avx512_bf16", "amx_bf16")],
)
def test_processors_take_bfloat16_only_if_they_have_instructions_for_it(monkeypatch, abilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert fast_dtype(CPU) == dtype


def test_what_cannot_be_told_is_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert fast_dtype(CPU) == torch.float32
    assert fast_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("native", [True, False])
def test_gpus_take_bfloat16_only_if_it_is_not_emulated(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())  # there may be none
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fast_dtype(torch.device("cuda")) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_auto_is_the_fast_one(monkeypatch, fast):
    monkeypatch.setattr("hvq_inpaint.execution.fast_dtype", lambda device: fast)
    for precision, expected in (("auto", fast), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with running_in(precision, CPU):
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == expected


def test_an_autocast_of_the_caller_has_no_influence():
    with torch.autocast("cpu", torch.bfloat16), running_in("float32", CPU):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32


def test_inpaint_runs_the_networks_in_the_precision_and_what_the_caller_does_in_its_own(model):
    seen, outside = [], []
    handle = model.refiner.blocks.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    pixels, mask = make_pixels(48, 40), box_mask(48, 40, 0.3, 0)
    images = {}
    for precision in ("float32", "bfloat16"):
        images[precision] = model.inpaint(
            pixels,
            mask,
            precision=precision,
            output_type="numpy",
            callback=lambda *_: outside.append(torch.is_autocast_enabled("cpu") or torch.is_inference_mode_enabled()),
        ).image
        assert np.array_equal(images[precision][~mask], pixels[~mask])
    handle.remove()
    assert seen == [torch.float32, torch.bfloat16]
    assert outside == [False, False]
    # Some codes may be others: near as a whole, not everywhere.
    assert 0 < np.abs(images["float32"].astype(float) - images["bfloat16"])[mask].mean() < 8


def test_bfloat16_does_not_coarsen_the_colours(model):
    """The last layer is float32: between 0.5 and 1 bfloat16 has only 128 values."""
    with torch.no_grad(), running_in("bfloat16", CPU):
        refined = model.refiner(torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
    assert refined.dtype == torch.float32
    assert len(refined.unique()) > 2000


def test_convolutions_get_channels_last_and_pictures_come_back_in_the_usual_order(model):
    orders = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            module.register_forward_hook(
                lambda _, inputs, __, name=name: orders.update(
                    {name: inputs[0].is_contiguous(memory_format=torch.channels_last)}
                )
            )
    with torch.no_grad():
        output = model(torch.rand(2, 3, 32, 48), torch.ones(2, 1, 32, 48))
    assert len(orders) > 20 and all(orders.values()), [name for name, order in orders.items() if not order]
    for picture in (output.coarse, output.refined, output.composite):
        assert picture.is_contiguous()


def test_the_order_leaves_values_alone():
    images = torch.rand(2, 3, 4, 5)
    ordered = channels_last(images)
    assert torch.equal(ordered, images) and ordered.stride() == (60, 1, 15, 3)

"""Cached inputs of the refiner are those that training would make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model

from hvq_inpaint.data import InpaintingDataset, SampleOptions, load_images
from hvq_inpaint.training import cache as cache_module
from hvq_inpaint.training.cache import CachedInputs, cache_inputs
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.stages import RefinerStage

CPU = torch.device("cpu")


@pytest.fixture
def samples(image_folder: Path) -> InpaintingDataset:
    return InpaintingDataset(load_images(str(image_folder)), SampleOptions(crop_size=32, mask_size=48, seed=3))


def test_every_epoch_holds_every_image_once_and_each_its_own_crops(model, samples, tmp_path):
    cached = cache_inputs(model, samples, 20, tmp_path, CPU)
    assert len(cached) == 20
    order = cache_module._order(8, 20, 3)
    assert [sorted(index for epoch, index in order if epoch == number) for number in (0, 1)] == [list(range(8))] * 2
    assert [index for _, index in order[:8]] != [index for _, index in order[8:16]]
    for position, (epoch, index) in enumerate(order):
        samples.set_epoch(epoch)
        made, stored = samples[index], cached[position]
        assert torch.equal(made["known"], stored["known"])
        assert torch.allclose(made["image"], stored["image"], atol=1e-6)
        with torch.no_grad():
            coarse = model(made["image"][None], made["known"][None]).coarse[0]
        assert torch.allclose(coarse, stored["coarse"], atol=0.6 / 255)


def test_a_step_from_the_cache_is_that_of_a_step_without(model, samples, tmp_path):
    cached = cache_inputs(model, samples, 4, tmp_path, CPU)
    batch = torch.utils.data.default_collate([cached[index] for index in range(4)])
    options = parse_options(["--stage", "refiner", "--dataset", "x", "--output", "x"])[0]
    stage = RefinerStage(model, options).train()
    plain, _ = stage(batch["image"], batch["known"])
    fast, _ = stage(**batch)
    assert fast.item() == pytest.approx(plain.item(), rel=0.02)
    with_noise, _ = stage(batch["image"], batch["known"], torch.rand_like(batch["coarse"]))
    assert abs(with_noise.item() - plain.item()) > 10 * abs(fast.item() - plain.item())


def test_a_whole_cache_is_used_and_half_a_one_made_anew(model, samples, tmp_path, monkeypatch):
    cache_inputs(model, samples, 4, tmp_path, CPU)
    before = np.load(tmp_path / "coarse.npy")
    cache_inputs(make_model(seed=1), samples, 4, tmp_path, CPU)
    assert np.array_equal(np.load(tmp_path / "coarse.npy"), before)
    (tmp_path / "known.npy").unlink()
    cache_inputs(make_model(seed=1), samples, 4, tmp_path, CPU)
    assert not np.array_equal(np.load(tmp_path / "coarse.npy"), before)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["coarse.npy", "image.npy", "known.npy"]
    assert len(CachedInputs(tmp_path)) == 4

"""Which parts of a photograph are worked, at what scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hvq_inpaint import InvalidInputError
from hvq_inpaint.masks import brush_mask, random_walk_mask
from hvq_inpaint.regions import STRATEGIES, pad_to_multiple, plan, shrink


def make_mask(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (900, 1200)) -> np.ndarray:
    """True in boxes of (top, bottom, left, right)."""
    mask = np.zeros(size, dtype=bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_a_small_hole_is_cropped_at_its_own_scale():
    (region,) = plan(make_mask((880, 900, 300, 320)), working_size=256)
    assert region.size == (256, 256) == region.working_size and not region.refine
    assert region.bottom == 900 and region.left <= 300 - 100


def test_a_large_hole_is_worked_reduced_and_then_refined():
    (region,) = plan(make_mask((100, 900, 100, 1100)), working_size=256)
    assert (region.top, region.left, region.bottom, region.right) == (0, 0, 900, 1200)
    assert region.working_size == (192, 256) and region.refine


def test_holes_far_apart_are_worked_separately_and_near_ones_together():
    regions = plan(make_mask((0, 20, 0, 20), (500, 520, 1100, 1150), (40, 60, 50, 70)), working_size=256)
    assert len(regions) == 2
    assert all(region.size == (256, 256) for region in regions)


def test_a_thin_scratch_is_worked_in_parts_at_its_own_scale():
    mask = make_mask((450, 456, 0, 1200))
    regions = plan(mask, working_size=256)
    assert len(regions) > 4
    assert all(region.size == region.working_size for region in regions)


def test_the_automatic_choice_and_the_strategies():
    small, large = make_mask((10, 20, 10, 20), size=(200, 256)), make_mask((10, 20, 10, 20))
    assert plan(small, working_size=256) == plan(small, "original", 256)
    assert plan(large, working_size=256) == plan(large, "crop", 256)
    assert plan(large, "original", 256)[0].working_size == (900, 1200)
    (resized,) = plan(large, "resize", 256)
    assert resized.size == (900, 1200) and resized.working_size == (192, 256) and not resized.refine


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(3))
def test_each_missing_pixel_is_the_business_of_one_region_that_contains_it(strategy, seed):
    size = (300 + 97 * seed, 500)
    for mask in (
        random_walk_mask(*size, 0.2, seed),
        brush_mask(*size, 0.3, seed),
        np.random.default_rng(seed).random(size) > 0.999,
        make_mask((0, size[0], 0, 200), size=size),
    ):
        count = np.zeros(size, dtype=int)
        for region in plan(mask, strategy, 128):
            inside = np.zeros(size, dtype=bool)
            inside[region.slices] = True
            assert inside[region.hole].all() and inside[region.hole].size
            count[region.hole] += 1
            height, width = region.working_size
            assert max(height, width) <= (128 if strategy != "original" else 500)
        assert (count[mask] == 1).all()


def every(step: int, size: tuple[int, int], both: bool = False) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[(slice(None, None, step),) * (2 if both else 1)] = True
    return mask


def growing_gaps() -> np.ndarray:
    mask = np.zeros((4950, 300), dtype=bool)
    mask[np.cumsum(np.arange(2, 100))] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "most"),
    [
        (every(4, (6000, 520)), 150),  # where 24 windows would cover the whole
        (every(40, (2000, 3000)), 150),
        (every(4, (1200, 1200), both=True), 20),
        (every(20, (1200, 1200), both=True), 20),
        (growing_gaps(), 20),
    ],
)
def test_many_holes_alike_share_their_crops(mask, most):
    assert len(plan(mask)) <= most


def test_what_is_no_strategy_is_refused():
    for arguments in (("fast", 256), ("auto", 100), ("auto", 0)):
        with pytest.raises(InvalidInputError):
            plan(make_mask((0, 9, 0, 9)), *arguments)


def test_shrinking_lets_nothing_of_the_hole_through():
    image, known = torch.zeros(1, 3, 40, 60), torch.ones(1, 1, 40, 60)
    known[..., 13:20, 21:33] = 0
    image[(known == 0).expand_as(image)] = 1  # what the mask hides is white
    small, small_known = shrink(image, known, (14, 22))
    assert (small * small_known).max() == 0
    assert 0 < (1 - small_known).sum() < 14 * 22


def test_padding_repeats_the_last_row_and_column():
    tensor = torch.rand(1, 3, 5, 11)
    padded = pad_to_multiple(tensor, 8)
    assert padded.shape == (1, 3, 8, 16)
    assert np.array_equal(padded[0].numpy(), np.pad(tensor[0].numpy(), ((0, 0), (0, 3), (0, 5)), mode="edge"))

"""Masks: exact ratios, connectedness, the same mask for the same name for ever."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from scipy import ndimage

from hvq_inpaint import InvalidInputError
from hvq_inpaint.masks import (
    MASK_KINDS,
    RATIO_BUCKETS,
    _fold,
    box_mask,
    brush_mask,
    make_mask,
    random_walk_mask,
    ratio_in_bucket,
)

SIZES = [(64, 64), (40, 97), (9, 5), (256, 256)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.6, 0.95])
def test_random_walk_has_exactly_the_ratio_and_is_4_connected(size, ratio):
    mask = random_walk_mask(*size, ratio, seed=7)
    assert mask.shape == size and mask.dtype == bool
    assert mask.sum() == round(ratio * size[0] * size[1])
    assert ndimage.label(mask)[1] == 1  # SciPy's default neighbourhood is the 4-neighbourhood


def test_folding_is_a_walk_in_which_a_step_off_the_image_is_drawn_again():
    steps = np.random.default_rng(0).choice([-1, 1], 10_000)
    free = np.cumsum(steps)
    position, walked = 0, []
    folded = _fold(np.concatenate([[0], free]), 7)
    for here, there in itertools.pairwise(folded):
        assert here == position
        # One step, or, at a border only, none.
        assert abs(int(there) - int(here)) == 1 or (here == there and here in (0, 6))
        position = int(there)
        walked.append(position)
    assert set(walked) == set(range(7))


def naive_walk(size: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """The paper's words as a loop: step by step, a step off the image drawn again."""
    mask = np.zeros((size, size), dtype=bool)
    position = generator.integers(0, size, 2)
    mask[tuple(position)] = True
    while mask.sum() < round(ratio * size * size):
        step = position + [(0, 1), (0, -1), (1, 0), (-1, 0)][generator.integers(4)]
        if (step >= 0).all() and (step < size).all():
            position = step
            mask[tuple(position)] = True
    return mask


def test_random_walk_is_distributed_like_a_walk_step_by_step():
    generator = np.random.default_rng(0)
    expected = np.mean([naive_walk(10, 0.4, generator) for _ in range(400)], axis=0)
    share = np.mean([random_walk_mask(10, 10, 0.4, seed) for seed in range(400)], axis=0)
    # Two means of 400 draws differ by more than 0.14 in one of 100 pixels about once in 200 such tests.
    assert np.abs(share - expected).max() < 0.14
    assert abs(share[:2].mean() - expected[:2].mean()) < 0.05  # along the border, where steps are drawn again


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.6])
@pytest.mark.parametrize("kind", ["brush", "box"])
def test_brush_and_box_are_close_to_the_ratio(kind, size, ratio):
    pixels = size[0] * size[1]
    for seed in range(10):
        mask = make_mask(kind, *size, ratio, seed)
        assert mask.shape == size and mask.dtype == bool
        assert abs(mask.sum() - ratio * pixels) <= max(0.02 * pixels, max(size) / 2)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_same_name_same_mask_and_another_seed_another(kind):
    first = make_mask(kind, 48, 56, 0.3, 5)
    assert np.array_equal(first, make_mask(kind, 48, 56, 0.3, 5))
    assert not np.array_equal(first, make_mask(kind, 48, 56, 0.3, 6))


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_numpy_s_numbers_name_the_same_mask(kind):
    same = make_mask(kind, np.int64(32), np.int32(40), np.float64(0.3), np.uint8(5))
    assert np.array_equal(make_mask(kind, 32, 40, 0.3, 5), same)


# A mask must stay the same across versions and platforms: datasets are published by their seeds.
STORED = {
    "random_walk": "921451f8247fe8fb",
    "brush": "ac0cf292124ee68d",
    "box": "90fa64dc291443a4",
}


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_are_those_of_the_first_release(kind):
    digest = hashlib.sha256()
    for ratio in (0.1, 0.33, 0.6):
        for seed in (0, 1, 12345):
            digest.update(np.packbits(make_mask(kind, 96, 128, ratio, seed)).tobytes())
    assert digest.hexdigest()[:16] == STORED[kind]


def test_ratios_drawn_in_a_bucket_stay_in_it():
    for low, high in RATIO_BUCKETS:
        ratios = [ratio_in_bucket((low, high), seed) for seed in range(200)]
        assert low <= min(ratios) and max(ratios) < high
        assert len(set(ratios)) == 200


def test_boxes_are_boxes():
    mask = box_mask(64, 64, 0.2, 3)
    corners = mask[:-1, :-1].astype(int) + mask[1:, 1:] - mask[1:, :-1] - mask[:-1, 1:]
    assert np.count_nonzero(corners) <= 4 * 8  # a few boxes have few corners; a brush has hundreds
    assert np.count_nonzero(corners) < np.count_nonzero(
        brush_mask(64, 64, 0.2, 3)[:-1] != brush_mask(64, 64, 0.2, 3)[1:]
    )


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 2])
def test_a_ratio_outside_0_and_1_is_refused(ratio):
    with pytest.raises(InvalidInputError, match="ratio"):
        random_walk_mask(8, 8, ratio, 0)


def test_an_unknown_kind_or_an_empty_size_is_refused():
    with pytest.raises(InvalidInputError, match="blob"):
        make_mask("blob", 8, 8, 0.5, 0)
    with pytest.raises(InvalidInputError, match="0 x 8"):
        brush_mask(0, 8, 0.5, 0)

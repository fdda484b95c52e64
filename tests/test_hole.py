"""Masks in every accepted form, a sentence for every other; dilation and feathering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from hvq_inpaint import InvalidInputError
from hvq_inpaint.hole import feather_weights, grow, load_mask, mask_of_alpha, mask_of_picture
from hvq_inpaint.images import load_photograph

MASK = np.zeros((20, 30), dtype=bool)
MASK[5:9, 10:20] = True


@pytest.mark.parametrize(
    "form",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        np.where(MASK, 200, 90).astype(np.uint8),
        MASK.astype(np.float32),
        MASK[..., None],
        MASK[None],
        torch.from_numpy(MASK),
        torch.from_numpy(MASK)[None].float(),
        torch.from_numpy(MASK).bfloat16(),
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(np.uint8) * 255),
        Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(np.where(MASK, 200, 90).astype(np.uint8)),
        Image.fromarray(np.where(MASK, 60000, 20000).astype(np.uint16)),
        Image.fromarray(np.dstack([np.full((20, 30), 255), MASK * 255]).astype(np.uint8), "LA"),
    ],
)
def test_every_form_of_a_mask_gives_the_same_mask(form):
    assert np.array_equal(load_mask(form, (20, 30)), MASK)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((20, 30), bool), "empty"),
        (np.ones((20, 30), bool), "whole image"),
        (np.ones((30, 20), bool), "20 x 30 pixels and the image 30 x 20"),
        (np.full((20, 30), 300), "0 to 255"),
        (np.full((20, 30), np.nan), "NaN"),
        (np.zeros((20, 30, 3)), r"\(H, W\)"),
        (np.zeros((20, 30), complex), "complex"),
        (None, "NoneType"),
        (Image.new("LAB", (30, 20)), "mode LAB"),
    ],
)
def test_what_is_no_mask_is_refused_with_a_sentence(mask, message):
    with pytest.raises(InvalidInputError, match=message):
        load_mask(mask, (20, 30))


def test_what_is_transparent_is_a_mask():
    image = Image.new("RGBA", (30, 20), "red")
    image.putalpha(Image.fromarray(np.where(MASK, 127, 128).astype(np.uint8)))
    assert np.array_equal(mask_of_alpha(load_photograph(image)), MASK)
    for without, message in (
        (Image.new("RGB", (30, 20)), "no transparency"),
        (Image.new("RGBA", (30, 20), "red"), "nothing"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            mask_of_alpha(load_photograph(without))


def test_a_palette_mask_is_read_by_its_colours():
    picture = Image.fromarray(MASK.astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    assert np.array_equal(mask_of_picture(picture), ~MASK)


def distances(mask: np.ndarray) -> np.ndarray:
    """Of every pixel to the nearest True one, by brute force."""
    everywhere = np.argwhere(np.ones_like(mask))
    return cdist(everywhere, np.argwhere(mask)).min(axis=1).reshape(mask.shape)


@pytest.mark.parametrize("radius", [0, 1, 3, 6])
def test_growing_takes_all_that_is_so_near(radius):
    mask = np.random.default_rng(0).random((20, 30)) > 0.99
    assert np.array_equal(grow(mask, radius), distances(mask) <= radius)


def test_growing_over_the_whole_image_is_refused():
    with pytest.raises(InvalidInputError, match="grown by 40 pixels"):
        grow(MASK, 40)


def test_the_feather_is_one_in_the_mask_and_falls_to_nothing():
    weights = feather_weights(MASK, 4)
    assert np.allclose(weights, (1 - distances(MASK) / 5).clip(0, 1))
    assert (weights[MASK] == 1).all() and (weights[distances(MASK) >= 5] == 0).all()

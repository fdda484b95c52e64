"""Photographs and masks in every accepted form, and a sentence for every other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_pixels
from PIL import Image

from hvq_inpaint import InvalidInputError
from hvq_inpaint.images import load_mask, load_photograph, pad_to_multiple, shrink, to_pixels, to_tensor, working_region

PIXELS = make_pixels(20, 30)
MASK = np.zeros((20, 30), dtype=bool)
MASK[5:9, 10:20] = True


def test_every_form_of_an_image_gives_the_same_pixels(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    as_float = PIXELS.astype(np.float32) / 255
    forms = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(PIXELS),
        PIXELS,
        as_float,
        torch.from_numpy(as_float).permute(2, 0, 1),
    ]
    for form in forms:
        assert np.array_equal(load_photograph(form).pixels, PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_photograph_comes_back_in_its_mode(mode):
    image = Image.fromarray(PIXELS).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    photograph = load_photograph(image)
    back = photograph.with_pixels(photograph.pixels)
    assert back.mode == mode and np.array_equal(np.array(back), np.array(image))


def test_every_grey_value_survives():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    photograph = load_photograph(Image.fromarray(greys))
    assert np.array_equal(np.array(photograph.with_pixels(photograph.pixels)), greys)


def test_exif_orientation_is_applied_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    photograph = load_photograph(tmp_path / "image.png")
    assert np.array_equal(photograph.pixels, np.rot90(PIXELS, -1))
    assert photograph.with_pixels(photograph.pixels).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    "form",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.float32),
        MASK[..., None],
        MASK[None],
        torch.from_numpy(MASK),
        torch.from_numpy(MASK)[None].float(),
        Image.fromarray(MASK),
        Image.fromarray(MASK.astype(np.uint8) * 255),
        Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(np.where(MASK, 200, 90).astype(np.uint8)),
    ],
)
def test_every_form_of_a_mask_gives_the_same_mask(form):
    assert np.array_equal(load_mask(form, (20, 30)), MASK)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.int32), "uint8 or float"),
        (np.full((4, 4, 3), 3.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (torch.zeros(4, 4), r"\(3, H, W\)"),
        (Image.new("CMYK", (4, 4)), "CMYK"),
        (Image.new("I;16", (4, 4)), "I;16"),
        (17, "int"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(image, message):
    with pytest.raises(InvalidInputError, match=message):
        load_photograph(image)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((20, 30), bool), "empty"),
        (np.ones((20, 30), bool), "whole image"),
        (np.ones((30, 20), bool), "20 x 30 pixels and the image 30 x 20"),
        (np.full((20, 30), 300), "0 to 255"),
        (np.full((20, 30), np.nan), "NaN"),
        (np.zeros((20, 30, 3)), r"\(H, W\)"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_mask_is_refused_with_a_sentence(mask, message):
    with pytest.raises(InvalidInputError, match=message):
        load_mask(mask, (20, 30))


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(make_pixels(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    frames = [Image.fromarray(make_pixels(8, 8, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name, message in [
        ("none.png", "no file"),
        ("text.png", "not an image"),
        ("cut.png", "truncated"),
        ("moving.gif", "3 frames"),
        ("", "folder"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            load_photograph(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidInputError, match="too many"):
        load_photograph(tmp_path / "whole.png")


def test_the_photograph_of_a_phone_s_mpo_is_taken(tmp_path):
    frames = [Image.fromarray(make_pixels(16, 24, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:], quality=100)
    pixels = load_photograph(tmp_path / "phone.jpg").pixels
    assert np.abs(pixels.astype(int) - make_pixels(16, 24, 0)).mean() < 8


def test_pixels_survive_the_way_to_a_tensor_and_back():
    assert np.array_equal(to_pixels(to_tensor(PIXELS)[0]), PIXELS)


def test_the_region_contains_the_hole_and_its_surroundings():
    mask = np.zeros((900, 1200), dtype=bool)
    mask[880:900, 300:320] = True
    region = working_region(mask, longest_side=256)
    assert (region.bottom - region.top, region.right - region.left) == (256, 256) == region.working_size
    assert mask[region.slices].sum() == mask.sum()
    mask[100:900, 100:1100] = True
    region = working_region(mask, longest_side=256)
    assert (region.top, region.left, region.bottom, region.right) == (0, 0, 900, 1200)
    assert region.working_size == (192, 256)


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

"""Everything that a person may have on the disk and that can't be filled: each is answered with its own sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.images import load_photograph

SIZE = (24, 32)  # height and width
MASK = np.zeros(SIZE, dtype=bool)
MASK[5:12, 8:20] = True
PIXELS = make_pixels(*SIZE)


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    """A file of this content."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def saved(name: str, image: Image.Image, cut: int | None = None, **options: Any) -> Callable[[Path], Path]:
    """An image saved by Pillow, of which only the first `cut` bytes are left."""

    def write(folder: Path) -> Path:
        image.save(folder / name, **options)
        (folder / name).write_bytes((folder / name).read_bytes()[:cut])
        return folder / name

    return write


def deep_png(folder: Path) -> Path:
    """16 bits for each of three colours, which Pillow would cut to 8."""
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(folder / "deep.png"), PIXELS.astype(np.uint16) * 257)
    return folder / "deep.png"


def with_value(value: float, dtype: type = np.float32) -> np.ndarray:
    array = PIXELS.astype(dtype) / 255
    array[3, 4, 1] = value
    return array


PICTURE = Image.fromarray(PIXELS)
FRAMES = [Image.fromarray(make_pixels(*SIZE, seed)) for seed in range(3)]
MOVING = {"save_all": True, "append_images": FRAMES[1:]}

# (image, mask, words of the sentence); a function makes a file of its own in an empty folder.
BAD_IMAGES: list[tuple[Any, str]] = [
    (Path("no/such/file.png"), "There is no file"),
    ("", "There is no file"),
    (lambda folder: folder, "is a folder"),
    (file("text.png", b"only words"), "text.png is not an image"),
    (file("empty.jpg", b""), "empty.jpg is not an image"),
    (file("зима ☃.png", b"words"), "зима ☃.png is not an image"),
    (file("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), "is not an image"),
    (saved("cut.png", PICTURE, 600), "cut.png can't be decoded, it may be truncated"),
    (saved("cut.jpg", PICTURE, 500), "cut.jpg can't be decoded, it may be truncated"),
    (saved("cut.webp", PICTURE, 200), "cut.webp"),
    (saved("cut.tif", PICTURE, 700), "cut.tif"),
    (saved("cut.bmp", PICTURE, 700), "cut.bmp can't be decoded"),
    (saved("header.png", PICTURE, 20), "header.png"),
    (saved("moving.gif", FRAMES[0], **MOVING), "holds 3 frames"),
    (saved("moving.webp", FRAMES[0], **MOVING), "holds 3 frames"),
    (saved("moving.png", FRAMES[0], **MOVING), "holds 3 frames"),
    (saved("pages.tif", FRAMES[0], **MOVING), "holds 3 frames"),
    (saved("bomb.png", Image.new("1", (20_000, 20_000))), "too many to be decoded safely"),
    (deep_png, "16 bits for each colour"),
    (saved("floats.tif", Image.new("F", SIZE[::-1])), "mode F can't be filled"),
    (saved("integers.tif", Image.new("I", SIZE[::-1])), "mode I can't be filled"),
    (Image.new("HSV", SIZE[::-1]), "mode HSV can't be filled"),
    (Image.new("RGB", (0, 0)), "empty, 0 x 0"),
    (np.zeros((0, 0, 3), np.uint8), "must be (H, W, 3)"),
    (np.zeros(SIZE, np.uint8), "must be (H, W, 3)"),
    (np.zeros((*SIZE, 4), np.uint8), "must be (H, W, 3)"),
    (np.zeros((3, *SIZE), np.uint8), "must be (H, W, 3)"),
    (PIXELS.astype(np.int64), "uint8 or float"),
    (PIXELS > 100, "uint8 or float"),
    (PIXELS.astype(complex), "uint8 or float"),
    (with_value(np.nan), "NaN"),
    (with_value(np.inf, np.float64), "infinite"),
    (with_value(-0.01), "lie in [0, 1]"),
    (PIXELS.astype(np.float32), "lie in [0, 1]"),
    (torch.zeros(1, *SIZE), "must be (3, H, W)"),
    (torch.zeros(*SIZE, 3), "must be (3, H, W)"),
    (torch.zeros(3, *SIZE, dtype=torch.int32), "uint8 or float"),
    (None, "not NoneType"),
    (7, "not int"),
    ([], "one mask for each image"),
]
BAD_MASKS: list[tuple[Any, str]] = [
    (Path("no/such/mask.png"), "There is no file"),
    (file("mask.png", b"only words"), "mask.png is not an image"),
    (saved("mask.png", Image.fromarray(MASK), 45), "mask.png"),
    (np.zeros(SIZE, bool), "empty"),
    (Image.new("L", SIZE[::-1], 127), "empty"),
    (Image.new("RGBA", SIZE[::-1], (255, 255, 255, 0)), "empty"),
    (np.ones(SIZE, bool), "whole image"),
    (Image.new("L", SIZE[::-1], 128), "whole image"),
    (np.ones((SIZE[0] + 1, SIZE[1]), bool), "same width and height"),
    (Image.new("L", SIZE, 255), "same width and height"),
    (np.ones((1, 1), bool), "same width and height"),
    (np.zeros((0, 0), bool), "same width and height"),
    (np.full(SIZE, np.nan), "without NaN"),
    (np.full(SIZE, 1.5), "lie in [0, 1]"),
    (np.full(SIZE, 300), "0 and 1, or 0 to 255"),
    (np.full(SIZE, -1), "0 and 1, or 0 to 255"),
    (np.zeros((*SIZE, 3), bool), "(H, W)"),
    (np.zeros(SIZE, "U3"), "bool, integer or float"),
    (Image.new("F", SIZE[::-1]), "mode F can't be read"),
    (None, "no transparency"),
    ([MASK, MASK], "1 images and 2 masks"),
    (3, "not int"),
]


@pytest.fixture(scope="module")
def model() -> HVQInpainter:
    return make_model()


def refusal(model: HVQInpainter, image: Any, mask: Any, folder: Path) -> str:
    image, mask = (value(folder) if callable(value) else value for value in (image, mask))
    before = sorted(folder.iterdir())
    with pytest.raises(InvalidInputError) as caught:
        model.inpaint(image, mask)
    assert sorted(folder.iterdir()) == before
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, of damaged files
@pytest.mark.parametrize(("image", "words"), BAD_IMAGES, ids=range(len(BAD_IMAGES)))
def test_a_bad_image_has_its_sentence(model, tmp_path, image, words):
    assert words in refusal(model, image, MASK, tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("mask", "words"), BAD_MASKS, ids=range(len(BAD_MASKS)))
def test_a_bad_mask_has_its_sentence(model, tmp_path, mask, words):
    assert words in refusal(model, PIXELS, mask, tmp_path)


def test_one_pixel_can_only_be_a_whole_mask(model):
    with pytest.raises(InvalidInputError, match="whole image"):
        model.inpaint(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), bool))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_exif_block_that_can_not_be_read_is_no_obstacle(model: HVQInpainter, tmp_path: Path, suffix: str) -> None:
    exif = b"Exif\0\0MM\xe3*\0\0\0\x08"  # neither order of bytes is marked
    pixels, mask = make_pixels(24, 30), np.zeros((24, 30), dtype=bool)
    mask[5:10, 5:10] = True
    Image.fromarray(pixels).save(tmp_path / f"photograph{suffix}", exif=exif, lossless=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"mask{suffix}", exif=exif, lossless=True)
    result = model.inpaint(tmp_path / f"photograph{suffix}", tmp_path / f"mask{suffix}")
    assert np.array_equal(np.asarray(result.image)[~mask], pixels[~mask])


def test_a_tiff_with_a_directory_without_a_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photograph.tif"
    Image.new("RGB", (8, 8)).save(path)
    contents = path.read_bytes() + b"\0" * (path.stat().st_size % 2)
    directory = struct.unpack("<I", contents[4:8])[0]
    entries = struct.unpack("<H", contents[directory : directory + 2])[0]
    link = directory + 2 + 12 * entries
    empty = struct.pack("<H", 1) + struct.pack("<HHII", 270, 2, 1, 0) + bytes(4)
    path.write_bytes(contents[:link] + struct.pack("<I", len(contents)) + contents[link + 4 :] + empty)
    with pytest.raises(InvalidInputError, match="can't be decoded"):
        load_photograph(path)

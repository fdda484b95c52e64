"""Photographs and masks in every accepted form, and a sentence for every other."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import psutil
import pytest
import torch
from conftest import in_mode, make_pixels
from PIL import Image
from skimage.color import lab2rgb

from hvq_inpaint import InvalidInputError
from hvq_inpaint.files import save_image
from hvq_inpaint.images import Patch, Photograph, load_photograph, to_pixels, to_tensor

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
        assert np.array_equal(load_photograph(form).pixels(), PIXELS)


ACCEPTED = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B")


@pytest.mark.parametrize("mode", ACCEPTED)
def test_a_photograph_is_painted_in_its_mode_and_kept_elsewhere(mode):
    image = in_mode(mode)
    before = image.copy()
    photograph = load_photograph(image)
    where = MASK[3:15, 5:25]
    painted = photograph.painted([Patch(3, 5, where, np.full((12, 20, 3), 0.2, np.float32))])
    assert (painted.mode, painted.size) == (image.mode, image.size)
    assert np.array_equal(np.array(painted)[~MASK], np.array(image)[~MASK])
    assert not np.array_equal(np.array(painted)[MASK], np.array(image)[MASK])
    assert image.tobytes() == before.tobytes()
    if mode in ("LA", "RGBA"):
        assert np.array_equal(np.array(painted.getchannel("A")), np.array(image.getchannel("A")))


@pytest.mark.parametrize("mode", ("L", "RGB", "CMYK", "I;16", "LA", "RGBA"))
def test_painting_what_was_there_changes_nothing_that_can_be_seen(mode):
    photograph = load_photograph(in_mode(mode))
    painted = photograph.painted([Patch(0, 0, np.ones((20, 30), bool), photograph.colours())])
    assert np.array_equal(load_photograph(painted).pixels(), photograph.pixels())


def test_a_palette_is_kept_and_the_nearest_of_its_colours_taken():
    image = Image.fromarray(PIXELS).quantize(13)
    photograph, colours = load_photograph(image), make_pixels(20, 30, 5).astype(np.float32) / 255
    painted = photograph.painted([Patch(0, 0, MASK, colours)])
    assert painted.getpalette() == image.getpalette()
    palette = np.array(image.getpalette()).reshape(-1, 3)
    got = np.array(painted.convert("RGB"))[MASK].astype(int)
    wanted = np.round(colours[MASK] * 255)
    for colour, want in zip(got, wanted, strict=True):  # by brute force
        assert np.square(colour - want).sum() == np.square(palette - want).sum(axis=1).min()


def test_a_transparent_palette_entry_is_no_colour_to_fill_with(tmp_path):
    image = Image.fromarray(PIXELS).quantize(8)
    image.save(tmp_path / "image.png", transparency=3)
    photograph = load_photograph(tmp_path / "image.png")
    transparent = np.array(image) == 3
    assert np.array_equal(photograph.alpha() == 0, transparent)
    hidden = np.array(image.getpalette()).reshape(-1, 3)[3] / 255
    patch = Patch(0, 0, np.ones((20, 30), bool), np.broadcast_to(hidden, (20, 30, 3)).astype(np.float32))
    assert np.array_equal(np.array(photograph.painted([patch])) == 3, transparent)
    assert not (np.array(photograph.painted([patch], opaque=True)) == 3).any()


@pytest.mark.parametrize("mode", ("L", "RGB"))
def test_a_colour_that_stands_for_transparency_is_never_painted(tmp_path, mode):
    image = in_mode(mode)
    image.putpixel((0, 0), 80 if mode == "L" else (80, 80, 80))
    image.save(tmp_path / "image.png", transparency=80 if mode == "L" else (80, 80, 80))
    photograph = load_photograph(tmp_path / "image.png")
    assert photograph.alpha()[0, 0] == 0
    patch = Patch(0, 0, np.ones((20, 30), bool), np.full((20, 30, 3), 80 / 255, np.float32))
    kept, opaque = (Photograph(photograph.painted([patch], opaque=flag)) for flag in (False, True))
    assert np.array_equal(kept.alpha(), photograph.alpha())
    assert (opaque.alpha() == 255).all()


def test_a_twelve_bit_grey_is_read_up_to_its_own_white():
    numbers = np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30)
    photograph = load_photograph(Image.fromarray(numbers))
    assert photograph.white == 4095
    assert np.allclose(photograph.colours()[..., 1], numbers / 4095)
    painted = photograph.painted([Patch(0, 0, MASK, photograph.colours())])
    assert np.array_equal(np.array(painted), numbers)


def test_sixteen_bits_a_colour_are_refused_and_not_cut(tmp_path):
    cv2 = pytest.importorskip("cv2")
    for name in ("image.png", "image.tif"):
        cv2.imwrite(str(tmp_path / name), make_pixels(20, 30).astype(np.uint16) * 257)
        with pytest.raises(InvalidInputError, match=r"16 bits|not an image"):
            load_photograph(tmp_path / name)
    cv2.imwrite(str(tmp_path / "grey.png"), make_pixels(20, 30)[..., 0].astype(np.uint16) * 257)
    assert load_photograph(tmp_path / "grey.png").mode == "I;16"


def black_ink_profile() -> bytes:
    """An ICC profile of a printer with black ink only: the lightness L* is 100 (1 - K), and C, M and Y do nothing."""

    def table(inputs: int, outputs: int, corner: Callable[[tuple[int, ...]], list[int]]) -> bytes:
        """A table of type lut8 with two grid points for each input."""
        straight = bytes(range(256))
        identity = struct.pack(">9i", *(np.eye(3, dtype=int).flatten() * 65536).tolist())
        grid = b"".join(bytes(corner(place)) for place in itertools.product((0, 1), repeat=inputs))
        head = b"mft1" + bytes(4) + bytes([inputs, outputs, 2, 0])
        return head + identity + straight * inputs + grid + straight * outputs

    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 6) + b"black\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": table(4, 3, lambda inks: [255 * (1 - inks[3]), 128, 128]),
        b"B2A0": table(3, 4, lambda lab: [0, 0, 0, 255 * (1 - lab[0])]),
    }
    directory, body, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        directory += name + struct.pack(">2I", at + len(body), len(content))
        body += content
    head = struct.pack(">I", at + len(body)) + bytes(4) + b"\x02\x40\0\0" + b"prtrCMYKLab " + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + directory + body


def test_cmyk_goes_through_its_profile_where_it_has_one():
    image = in_mode("CMYK")
    plain = load_photograph(image)
    assert np.array_equal(plain.pixels(), np.array(image.convert("RGB")))
    image.info["icc_profile"] = b"no profile"
    assert np.array_equal(load_photograph(image).pixels(), plain.pixels())

    inks = np.random.default_rng(0).integers(0, 256, (20, 30, 4)).astype(np.uint8)
    image = Image.fromarray(inks, "CMYK")
    image.info["icc_profile"] = black_ink_profile()
    photograph = load_photograph(image)
    grey = lab2rgb(np.dstack([100 * (1 - inks[..., 3] / 255), np.zeros((20, 30, 2))])) * 255
    assert np.abs(photograph.pixels() - grey).max() < 3
    painted = np.array(photograph.painted([Patch(0, 0, MASK, np.full((20, 30, 3), 0.5, np.float32))]))
    assert np.array_equal(painted[~MASK], inks[~MASK])
    assert not painted[MASK][:, :3].any()  # a conversion without the profile would take all inks
    assert np.abs(painted[MASK][:, 3] - 255 * (1 - 53.585 / 100)).max() < 3  # L* of that grey


def test_a_colour_painted_on_a_grey_photograph_becomes_its_luma():
    colours = make_pixels(20, 30, 3).astype(np.float32) / 255
    expected = np.round(colours @ np.array([0.299, 0.587, 0.114]) * 65535)  # ITU-R BT.601
    numbers = np.zeros((20, 30), np.uint16)
    numbers[0, 0] = 65535
    painted = load_photograph(Image.fromarray(numbers)).painted([Patch(0, 0, MASK, colours)])
    assert np.abs(np.array(painted)[MASK].astype(float) - expected[MASK]).max() <= 1


def test_a_tiff_keeps_the_tags_that_tell_of_the_photograph(tmp_path):
    tags = {0x010F: "Maker", 0x0110: "Camera", 0x013B: "Somebody", 0x8298: "All rights"}
    exif = Image.Exif()
    exif.update(tags)
    Image.fromarray(PIXELS).save(tmp_path / "image.tif", exif=exif, compression="tiff_lzw")
    painted = load_photograph(tmp_path / "image.tif").painted([])
    for suffix in (".png", ".tif"):
        save_image(painted, tmp_path / f"result{suffix}", suffix)
        kept = Image.open(tmp_path / f"result{suffix}").getexif()
        assert {tag: kept.get(tag) for tag in tags} == tags


def test_every_grey_value_survives():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    photograph = load_photograph(Image.fromarray(greys))
    patch = Patch(0, 0, np.ones((16, 16), bool), photograph.colours())
    assert np.array_equal(np.array(photograph.painted([patch])), greys)


def test_floats_come_back_as_they_were():
    array = np.random.default_rng(0).random((20, 30, 3))
    for given in (array, array.astype(np.float32), array.astype(np.float16), array.astype(">f4")):
        result = load_photograph(given).painted_array([Patch(0, 0, MASK, np.zeros((20, 30, 3), np.float32))])
        assert result.dtype == given.dtype.newbyteorder("=")
        assert np.array_equal(result[~MASK], given[~MASK]) and not result[MASK].any()


def test_exif_orientation_is_applied_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "image.png", exif=exif)
    photograph = load_photograph(tmp_path / "image.png")
    assert np.array_equal(photograph.pixels(), np.rot90(PIXELS, -1))
    assert photograph.painted([]).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.int32), "uint8 or float"),
        (np.zeros((4, 4, 3), np.longdouble), "uint8 or float"),
        (np.full((4, 4, 3), 3.0), r"\[0, 1\]"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (torch.zeros(4, 4), r"\(3, H, W\)"),
        (Image.new("HSV", (4, 4)), "HSV"),
        (Image.new("F", (4, 4)), "mode F"),
        (17, "int"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(image, message):
    with pytest.raises(InvalidInputError, match=message):
        load_photograph(image)


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
    pixels = load_photograph(tmp_path / "phone.jpg").pixels()
    assert np.abs(pixels.astype(int) - make_pixels(16, 24, 0)).mean() < 8


@pytest.mark.parametrize("name", ("phone.jpg", "one.gif", "image.tif", "moving.gif", "cut.png"))
def test_no_file_stays_open(tmp_path, name):
    frames = [Image.fromarray(make_pixels(32, 32, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for other in ("one.gif", "image.tif", "cut.png"):
        frames[0].save(tmp_path / other)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    kept = None
    with suppress(InvalidInputError):
        kept = load_photograph(tmp_path / name)
    assert str(tmp_path / name) not in {file.path for file in psutil.Process().open_files()}
    assert kept is None or kept.painted([]).getexif() is not None


def test_an_array_of_a_photograph_with_a_transparent_colour_is_painted_there(tmp_path):
    pixels = np.where(MASK, 80, PIXELS[..., 0]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png", transparency=80)
    photograph = load_photograph(tmp_path / "image.png")
    patch = Patch(0, 0, MASK, np.full((20, 30, 3), 0.7, np.float32))
    assert (photograph.painted_array([patch], opaque=True)[MASK] == round(0.7 * 255)).all()
    assert (photograph.painted_array([patch])[MASK] == 80).all()


def test_pixels_survive_the_way_to_a_tensor_and_back():
    assert np.array_equal(to_pixels(to_tensor(PIXELS)[0]), PIXELS)

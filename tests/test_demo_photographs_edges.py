"""The editor's photographs, uploads and downloads: the exact sentences, and what lies at the edge of each promise."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from conftest import make_pixels, pixels_of
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image, ImageCms

from hvq_inpaint import InvalidInputError
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.demo.photographs import (
    STROKE_COLOUR,
    check_editor,
    check_photograph_file,
    checked_first,
    filled_name,
    marked,
    own_suffix,
    refuse_unless,
    save_results,
    strokes_over,
    temporary_folder,
)

HEIGHT, WIDTH = 24, 30


@pytest.fixture
def photograph() -> Image.Image:
    return Image.fromarray(make_pixels(HEIGHT, WIDTH)).convert("RGBA")


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:12, 8:20] = True
    return mask


def write_png_of_size(path: Path, width: int, height: int) -> None:
    """A PNG whose header alone says that it is so large."""
    Image.new("RGB", (2, 2)).save(path)
    png = path.read_bytes()
    header = png[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    path.write_bytes(png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:])


def held(photograph: Image.Image, mask: np.ndarray | None = None) -> dict[str, Any]:
    """What Gradio gives for the editor."""
    return {"background": photograph, "layers": [] if mask is None else [strokes_over(mask)], "composite": None}


def sent(path: Path, name: str | None = "mine.png") -> FileData:
    return FileData(path=str(path), orig_name=name)


# ---------------------------------------------------------------- photographs and marks


def test_what_is_missing_is_said_in_whole_sentences(photograph: Image.Image) -> None:
    with pytest.raises(InvalidInputError) as refused:
        marked(None, None)
    assert str(refused.value) == "There is no photograph yet: upload one and paint over what is to be filled."
    with pytest.raises(InvalidInputError) as refused:
        marked(held(photograph), None)
    assert str(refused.value) == (
        "The mask is empty: paint over what is to be filled, add a mask image, or let the page damage it."
    )


def test_a_mask_image_without_a_photograph_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=r"^There is no photograph yet"):
        marked({"background": None, "layers": [strokes_over(mask)], "composite": None}, Image.fromarray(mask))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_of_its_own_makes_a_photograph_coloured(mask: np.ndarray, channel: int) -> None:
    pixels = np.repeat(make_pixels(HEIGHT, WIDTH)[..., :1], 3, axis=2)
    pixels[3, 4, channel] ^= 1
    image, _ = marked(held(Image.fromarray(pixels).convert("RGBA"), mask), None)
    assert image.mode == "RGB" and np.array_equal(image, pixels)


@pytest.mark.parametrize("alpha", [0, 128, 254])
def test_one_pixel_that_is_not_opaque_keeps_the_transparency(
    photograph: Image.Image, mask: np.ndarray, alpha: int
) -> None:
    photograph.putpixel((3, 4), (9, 9, 9, alpha))
    image, _ = marked(held(photograph, mask), None)
    assert image.mode == "RGBA" and np.array_equal(image, photograph)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_mask_image_is_cut_at_half_of_white(photograph: Image.Image, mask: np.ndarray, mode: str) -> None:
    picture = Image.fromarray(np.where(mask, 200, 100).astype(np.uint8))
    _, marks = marked(held(photograph), picture.point(lambda value: 255 * (value > 127)).convert(mode))
    assert np.array_equal(marks, mask)
    _, marks = marked(held(photograph), picture)
    assert np.array_equal(marks, mask)


def test_what_was_made_of_a_mask_can_be_added_to(photograph: Image.Image, mask: np.ndarray) -> None:
    value = held(photograph, mask)
    value["layers"].append(strokes_over(mask[::-1]))
    before = mask.copy()
    _, marks = marked(value, Image.fromarray(mask[:, ::-1].copy()))
    assert np.array_equal(marks, mask | mask[::-1] | mask[:, ::-1])
    assert np.array_equal(mask, before)


def test_strokes_have_the_colour_of_the_brush(mask: np.ndarray) -> None:
    strokes = np.asarray(strokes_over(mask))
    assert strokes.shape == (HEIGHT, WIDTH, 4)
    assert (strokes[mask][:, :3] == STROKE_COLOUR).all() and not strokes[~mask].any()


# ---------------------------------------------------------------- uploads


def test_a_photograph_of_just_the_limit_passes(tmp_path: Path) -> None:
    path = tmp_path / "photograph.png"
    Image.new("L", (100, 50)).save(path)
    check_photograph_file(str(path), Limits(megapixels=0.005))
    with pytest.raises(InvalidInputError, match="megapixels"):
        check_photograph_file(str(path), Limits(megapixels=0.004999))


def test_the_header_alone_refuses_an_upload(tmp_path: Path) -> None:
    """Such a file could not be decoded, so any other sentence would show that it was tried."""
    path, good = tmp_path / "stored.png", tmp_path / "good.png"
    write_png_of_size(path, 6000, 5000)
    Image.new("RGBA", (8, 8)).save(good)
    expected = (
        "The photograph has 30.0 megapixels, and this page takes up to 25: reduce it, or fill it on the command line."
    )
    with pytest.raises(InvalidInputError) as refused:
        check_photograph_file(str(path), Limits())
    assert str(refused.value) == expected
    for value in (EditorData(background=sent(path)), EditorData(background=sent(good), layers=[sent(path)])):
        with pytest.raises(gr.Error) as toast:
            check_editor(value, Limits())
        assert toast.value.message == expected


@pytest.mark.parametrize("side", [20000, 2**31 - 1])
def test_a_bomb_is_refused_even_where_no_limit_would(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    write_png_of_size(path, side, side)
    with pytest.raises(InvalidInputError, match=r"bomb\.png has more than \d+ pixels, too many to be decoded safely"):
        check_photograph_file(str(path), Limits(megapixels=1e15))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(make_pixels(40, 40)).save(whole)
        check_photograph_file(str(whole), Limits())
        contents, cut = whole.read_bytes(), tmp_path / f"cut.{suffix}"
        for length in (0, 1, 10, len(contents) // 3, len(contents) // 2):
            cut.write_bytes(contents[:length])
            with pytest.raises(InvalidInputError, match=rf"cut\.{suffix} (can't be decoded|is not an image)"):
                check_photograph_file(str(cut), Limits())


def test_a_format_of_no_photographs_is_refused_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "texture.png"
    path.write_bytes(
        b"DDS " + struct.pack("<7I", 124, 0x1007, 4, 4, 0, 0, 0) + bytes(44) + struct.pack("<I", 32) + bytes(48)
    )
    with pytest.raises(InvalidInputError, match="is not an image that can be read"):
        check_photograph_file(str(path), Limits())


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^There is no file .*missing\.png\.$"):
        check_photograph_file(str(tmp_path / "missing.png"), Limits())
    with pytest.raises(InvalidInputError, match="is a folder, not an image"):
        check_photograph_file(str(tmp_path), Limits())


def test_a_refusal_never_tells_where_the_file_lies(tmp_path: Path) -> None:
    path = tmp_path / "stored.png"
    path.write_text("not a picture")
    for name, said in (("mine.png", "mine.png"), (None, "The file")):
        with pytest.raises(gr.Error) as refused:
            check_editor(EditorData(background=sent(path, name)), Limits())
        assert refused.value.message.startswith(f"{said} is not an image") and str(tmp_path) not in str(refused.value)
        assert not refused.value.print_exception


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_what_the_editor_holds_passes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "stored.png"
    Image.fromarray(make_pixels(8, 8)).convert(mode).save(path)
    check_editor(EditorData(background=sent(path)), Limits())


def test_nothing_sent_is_nothing_to_refuse() -> None:
    read: list[str] = []
    refuse_unless(None, read.append)
    refuse_unless(FileData.model_construct(path=None, orig_name=None), read.append)
    check_editor(EditorData(background=None, layers=[]), Limits())
    assert read == []


def test_a_component_reads_nothing_that_was_refused() -> None:
    seen: list[tuple[str, Any]] = []
    component = gr.Textbox()
    component.preprocess = lambda value: seen.append(("read", value)) or f"read {value}"

    def check(value: str) -> None:
        seen.append(("checked", value))
        if value == "bad":
            raise gr.Error("no")

    checked_first(component, check)
    assert component.preprocess("good") == "read good"
    with pytest.raises(gr.Error):
        component.preprocess("bad")
    assert seen == [("checked", "good"), ("read", "good"), ("checked", "bad")]


# ---------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("name", "image", "suffix"),
    [
        ("a.webp", Image.new("RGB", (16383, 1)), ".webp"),
        ("a.webp", Image.new("RGB", (16384, 1)), None),
        ("a.webp", Image.new("CMYK", (8, 8)), None),
        ("a.jpg", Image.new("CMYK", (8, 8)), ".jpg"),
        ("a.jpg", Image.new("P", (8, 8)), None),
        ("a.bmp", Image.new("RGBA", (8, 8)), None),
        ("a.tif", Image.new("CMYK", (8, 8)), ".tif"),
        ("A.PNG", Image.new("RGB", (8, 8)), None),
        ("a.jpg.exe", Image.new("RGB", (8, 8)), None),
        ("../a.jpg", Image.new("RGB", (8, 8)), ".jpg"),
        ("", Image.new("RGB", (8, 8)), None),
    ],
)
def test_a_format_that_can_not_hold_the_result_is_not_offered(
    name: str, image: Image.Image, suffix: str | None
) -> None:
    assert own_suffix(name, image) == suffix


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "/etc/passwd", "..\\..\\x.png", "a\0b.png", "\ud800.png", "\u202egnp.exe", "-rf", "$(x).png"],
)
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (path,) = save_results([Image.new("L", (2, 2))], name, tmp_path)
    assert [str(file) for file in tmp_path.iterdir()] == [path]
    assert Path(path).name == filled_name(name, ".png")
    assert not set(Path(path).name) & set("/\\\0\u202e$()") and not Path(path).name.startswith(("-", "."))


@pytest.mark.parametrize("letter", ["x", "é", "字", "\U00020000"])
def test_the_longest_name_fits_every_file_system(tmp_path: Path, letter: str) -> None:
    paths = save_results([Image.new("L", (2, 2))] * 4, letter * 300 + ".webp", tmp_path, ".webp")
    assert all(Path(path).is_file() and len(Path(path).name.encode()) <= 255 for path in paths)
    assert len(set(paths)) == 4 and Path(paths[0]).name == letter * 60 + "-filled.webp"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".bmp"])
def test_every_format_but_jpeg_keeps_every_pixel(tmp_path: Path, suffix: str) -> None:
    images = [Image.fromarray(make_pixels(HEIGHT, WIDTH, seed)) for seed in range(3)]
    paths = save_results(images, "mine.jpg", tmp_path, suffix)
    assert [Path(path).suffix for path in paths] == [suffix] * 3
    assert all(np.array_equal(pixels_of(path), image) for path, image in zip(paths, images, strict=True))


def test_jpeg_loses_as_little_as_it_can(tmp_path: Path, photograph: Image.Image) -> None:
    image = photograph.convert("RGB")
    (path,) = save_results([image], "mine.jpg", tmp_path, ".jpg")
    image.save(tmp_path / "expected.jpg", quality=95, subsampling=0)
    assert np.array_equal(pixels_of(path), pixels_of(tmp_path / "expected.jpg"))


def test_transparency_and_the_colour_profile_are_saved(tmp_path: Path, photograph: Image.Image) -> None:
    photograph.putalpha(Image.linear_gradient("L").resize(photograph.size))
    photograph.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in (None, ".webp"):  # WebP forgets the colours under what is transparent unless it is told not to
        (path,) = save_results([photograph], "mine.png", tmp_path, suffix)
        with Image.open(path) as saved:
            assert saved.mode == "RGBA" and np.array_equal(saved, photograph)
            assert saved.info["icc_profile"] == photograph.info["icc_profile"]


def test_files_are_gone_once_they_were_handed_over() -> None:
    with temporary_folder() as folder:
        save_results([Image.new("L", (2, 2))], "mine.png", folder)
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()
    with pytest.raises(GeneratorExit), temporary_folder() as folder:
        raise GeneratorExit
    assert not folder.exists()

"""What the browser sends and gets: photographs, strokes, masks, uploads and downloads."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from conftest import make_pixels, pixels_of
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image

from hvq_inpaint import InvalidInputError
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.demo.photographs import (
    check_editor,
    check_photograph_file,
    editor_value,
    filled_name,
    marked,
    own_suffix,
    save_picture,
    save_results,
    strokes_over,
)

HEIGHT, WIDTH = 40, 50


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(HEIGHT, WIDTH)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:20, 15:30] = True
    return mask


def editor(image: Image.Image | np.ndarray, *masks: np.ndarray, alpha: int = 255) -> dict[str, Any]:
    """What Gradio gives for the editor: everything RGBA."""
    photograph = image if isinstance(image, Image.Image) else Image.fromarray(image)
    layers = []
    for mask in masks:
        layer = np.zeros((*mask.shape, 4), dtype=np.uint8)
        layer[mask] = (255, 61, 129, alpha)
        layers.append(Image.fromarray(layer))
    return {"background": photograph.convert("RGBA"), "layers": layers, "composite": None}


@pytest.mark.parametrize("alpha", [1, 128, 255])
def test_strokes_count_however_faint_they_are(pixels: np.ndarray, mask: np.ndarray, alpha: int) -> None:
    photograph, marks = marked(editor(pixels, mask, alpha=alpha), None)
    assert photograph.mode == "RGB" and np.array_equal(photograph, pixels) and np.array_equal(marks, mask)


def test_layers_and_mask_image_add_up(pixels: np.ndarray, mask: np.ndarray) -> None:
    other, uploaded = np.roll(mask, 12, axis=0), np.roll(mask, -10, axis=1)
    _, marks = marked(editor(pixels, mask, other, np.zeros_like(mask)), Image.fromarray(uploaded))
    assert np.array_equal(marks, mask | other | uploaded)
    _, marks = marked(editor(pixels), Image.fromarray(uploaded))
    assert np.array_equal(marks, uploaded)


def test_the_photograph_is_upright(pixels: np.ndarray, mask: np.ndarray) -> None:
    value = editor(np.rot90(pixels), mask)
    exif = value["background"].getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    value["background"].info["exif"] = exif.tobytes()
    photograph, _ = marked(value, None)
    assert np.array_equal(photograph, pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_photograph_has_the_plainest_mode_that_holds_it(pixels: np.ndarray, mask: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    photograph, _ = marked(editor(image, mask), None)
    assert photograph.mode == mode and np.array_equal(photograph, image)


def test_what_can_not_be_filled_is_refused(pixels: np.ndarray, mask: np.ndarray) -> None:
    for value in (None, {"background": None, "layers": [], "composite": None}):
        with pytest.raises(InvalidInputError, match=r"^There is no photograph yet: upload one and paint"):
            marked(value, None)
    for value in (editor(pixels), editor(pixels, np.zeros_like(mask))):
        with pytest.raises(InvalidInputError, match=r"^The mask is empty: paint over what is to be filled, add a mask"):
            marked(value, None)
    message = r"^The mask is 40 x 50 pixels and the image 50 x 40"
    with pytest.raises(InvalidInputError, match=message):
        marked(editor(pixels, mask.T), None)
    with pytest.raises(InvalidInputError, match=message):
        marked(editor(pixels, mask), Image.fromarray(mask.T))


def test_what_is_given_to_the_editor_comes_back_from_it(tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    photograph = save_picture(Image.fromarray(pixels), tmp_path, "photograph")
    strokes = save_picture(strokes_over(mask), tmp_path, "strokes")
    value = editor_value(photograph, strokes)
    read = {
        "background": Image.open(value["background"]).convert("RGBA"),
        "layers": [Image.open(layer) for layer in value["layers"]],
        "composite": value["composite"],
    }
    shown, marks = marked(read, None)
    assert np.array_equal(shown, pixels) and np.array_equal(marks, mask)
    assert editor_value(photograph)["layers"] == []
    assert set(np.unique(np.asarray(strokes_over(mask))[..., 3])) == {0, 178}  # the photograph is seen through them


# ---------------------------------------------------------------- uploads


def test_a_large_photograph_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(make_pixels(100, 200)).save(path)
    check_photograph_file(str(path), Limits(megapixels=0.02))

    def decode(*arguments: Any) -> None:
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr("hvq_inpaint.demo.photographs.open_image", decode)
    with pytest.raises(
        InvalidInputError, match=r"^The photograph has 0\.0 megapixels, and this page takes up to 0\.019"
    ):
        check_photograph_file(str(path), Limits(megapixels=0.019))


def test_files_that_are_no_whole_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(make_pixels(100, 200)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    header = whole[12:16] + (60000).to_bytes(4, "big") * 2 + whole[24:29]
    for name, contents, message in (
        ("cut.png", whole[:20000], "can't be decoded"),
        ("words.png", b"not a picture", "is not an image"),
        ("bomb.png", whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:], r"has more than \d+"),
    ):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InvalidInputError, match=message):
            check_photograph_file(str(tmp_path / name), Limits())


@pytest.mark.parametrize("mode", ["CMYK", "I;16"])
def test_what_the_editor_would_change_is_refused_by_its_senders_name(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(make_pixels(20, 30)).convert("L")
    image = grey.convert("CMYK") if mode == "CMYK" else Image.fromarray(np.asarray(grey).astype(np.uint16) * 250)
    path = tmp_path / "stored.tif"
    image.save(path)
    value = EditorData(background=FileData(path=str(path), orig_name="mine.tif"))
    with pytest.raises(gr.Error) as refused:
        check_editor(value, Limits())
    assert f"Images of mode {mode} can't be edited in the browser" in refused.value.message


def test_a_bad_file_of_the_editor_is_refused_by_its_senders_name(tmp_path: Path) -> None:
    path = tmp_path / "stored.png"
    path.write_text("not a picture")
    whole = tmp_path / "whole.png"
    Image.fromarray(make_pixels(20, 30)).save(whole)
    bad, good = FileData(path=str(path), orig_name="mine.png"), FileData(path=str(whole))
    check_editor(None, Limits())
    check_editor(EditorData(background=good, layers=[good]), Limits())
    for value in (EditorData(background=bad), EditorData(background=good, layers=[good, bad])):
        with pytest.raises(gr.Error) as refused:
            check_editor(value, Limits())
        assert refused.value.message.startswith("mine.png is not an image")
        assert refused.value.title == "Nothing was filled"


# ---------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("name", "mode", "suffix"),
    [
        ("a.jpg", "RGB", ".jpg"),
        ("A.JPEG", "L", ".jpeg"),
        ("a.webp", "RGBA", ".webp"),
        ("a.tiff", "RGB", ".tiff"),
        ("a.png", "RGB", None),
        ("a", "RGB", None),
        ("a.heic", "RGB", None),
        ("a.jpg", "RGBA", None),  # JPEG has no transparency
    ],
)
def test_the_own_format_is_offered_where_it_holds_the_result(name: str, mode: str, suffix: str | None) -> None:
    assert own_suffix(name, Image.new(mode, (8, 8))) == suffix


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("holiday.jpg", "holiday-filled.png"),
        ("../../etc/passwd", "passwd-filled.png"),
        ("a b;c'd.png", "a-b-c-d-filled.png"),
        ("Übung.png", "Übung-filled.png"),
        ("", "photograph-filled.png"),
        ("....", "photograph-filled.png"),
        ("x" * 300 + ".png", "x" * 60 + "-filled.png"),
    ],
)
def test_names_of_results_are_harmless(name: str, filled: str) -> None:
    assert filled_name(name, ".png") == filled
    assert filled_name(name, ".png", 2) == filled.replace(".png", "-2.png")


def test_results_are_written_without_loss(tmp_path: Path, pixels: np.ndarray) -> None:
    images = [Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())]
    paths = save_results(images, "mine.jpg", tmp_path)
    assert [Path(path).name for path in paths] == ["mine-filled.png", "mine-filled-2.png"]
    assert all(np.array_equal(pixels_of(path), image) for path, image in zip(paths, images, strict=True))
    (path,) = save_results([images[0].convert("CMYK")], "mine.jpg", tmp_path)
    assert path.endswith("mine-filled.tif") and np.array_equal(pixels_of(path), images[0].convert("CMYK"))
    (path,) = save_results(images[:1], "mine.jpg", tmp_path, ".jpg")
    assert Image.open(path).format == "JPEG"

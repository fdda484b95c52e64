"""What the browser sends and gets: the photograph and the strokes in the editor, uploads, and files to download."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from conftest import in_mode, make_holes, make_pixels, pixels_of, write_png_that_claims
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData, ImageData
from PIL import Image, ImageCms

from hvq_inpaint import InvalidInputError
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.demo.photographs import (
    STROKE_COLOUR,
    Filled,
    check_editor,
    check_photograph_file,
    checked_first,
    editor_value,
    filled_name,
    folder_for_visitor,
    marked,
    own_suffix,
    refuse_unless,
    save_picture,
    save_results,
    strokes_over,
)

HEIGHT, WIDTH = 24, 30


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(HEIGHT, WIDTH)


@pytest.fixture
def mask() -> np.ndarray:
    return make_holes(HEIGHT, WIDTH, np.s_[5:12, 8:20])


def held(photograph: Image.Image | np.ndarray | None, *masks: np.ndarray) -> dict[str, Any]:
    """What Gradio gives for the editor, with a layer for each mask: everything RGBA."""
    if isinstance(photograph, np.ndarray):
        photograph = Image.fromarray(photograph)
    return {
        "background": photograph and photograph.convert("RGBA"),
        "layers": [strokes_over(mask) for mask in masks],
        "composite": None,
    }


def sent(path: Path, name: str | None = "mine.png") -> FileData:
    """A file that a visitor, who calls it `name`, has uploaded."""
    return FileData(path=str(path), orig_name=name)


# ---------------------------------------------------------------- the photograph in the editor


def test_the_photograph_is_upright(pixels: np.ndarray, mask: np.ndarray) -> None:
    value = held(np.rot90(pixels), mask)
    exif = value["background"].getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    value["background"].info["exif"] = exif.tobytes()
    photograph, _ = marked(value, None)
    assert np.array_equal(photograph, pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_photograph_has_the_plainest_mode_that_holds_it(mask: np.ndarray, mode: str) -> None:
    image = in_mode(mode, HEIGHT, WIDTH)
    photograph, _ = marked(held(image, mask), None)
    assert photograph.mode == mode and np.array_equal(photograph, image)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_channel_of_its_own_makes_a_photograph_coloured(mask: np.ndarray, channel: int) -> None:
    pixels = np.asarray(in_mode("L", HEIGHT, WIDTH).convert("RGB")).copy()
    pixels[3, 4, channel] ^= 1
    photograph, _ = marked(held(pixels, mask), None)
    assert photograph.mode == "RGB" and np.array_equal(photograph, pixels)


@pytest.mark.parametrize("alpha", [0, 128, 254])
def test_one_pixel_that_is_not_opaque_keeps_the_transparency(pixels: np.ndarray, mask: np.ndarray, alpha: int) -> None:
    image = Image.fromarray(pixels).convert("RGBA")
    image.putpixel((3, 4), (9, 9, 9, alpha))
    photograph, _ = marked(held(image, mask), None)
    assert photograph.mode == "RGBA" and np.array_equal(photograph, image)


# ---------------------------------------------------------------- what is marked of it


@pytest.mark.parametrize("alpha", [1, 128, 255])
def test_strokes_count_however_faint_and_dark_they_are(pixels: np.ndarray, mask: np.ndarray, alpha: int) -> None:
    stroke = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    stroke[mask] = (0, 0, 0, alpha)
    photograph, marks = marked({**held(pixels), "layers": [Image.fromarray(stroke)]}, None)
    assert photograph.mode == "RGB" and np.array_equal(photograph, pixels) and np.array_equal(marks, mask)


def test_layers_and_a_mask_image_add_up(pixels: np.ndarray, mask: np.ndarray) -> None:
    other, uploaded = np.roll(mask, 9, axis=0), mask[:, ::-1].copy()
    layers = mask, other, np.zeros_like(mask)
    before = [layer.copy() for layer in layers]
    _, marks = marked(held(pixels, *layers), Image.fromarray(uploaded))
    assert np.array_equal(marks, mask | other | uploaded)
    _, marks = marked(held(pixels), Image.fromarray(uploaded))
    assert np.array_equal(marks, uploaded)
    assert all(map(np.array_equal, layers, before))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_mask_image_is_cut_at_half_of_white(pixels: np.ndarray, mask: np.ndarray, mode: str) -> None:
    image = Image.fromarray(mask if mode == "1" else np.where(mask, 200, 100).astype(np.uint8)).convert(mode)
    _, marks = marked(held(pixels), image)
    assert np.array_equal(marks, mask)


def test_what_is_missing_is_said_in_whole_sentences(pixels: np.ndarray, mask: np.ndarray) -> None:
    for value in (None, held(None), held(None, mask)):
        with pytest.raises(InvalidInputError) as refused:
            marked(value, Image.fromarray(mask))
        assert str(refused.value) == "There is no photograph yet: upload one and paint over what is to be filled."
    for value in (held(pixels), held(pixels, np.zeros_like(mask))):
        with pytest.raises(InvalidInputError) as refused:
            marked(value, None)
        assert str(refused.value) == (
            "The mask is empty: paint over what is to be filled, add a mask image, or let the page damage it."
        )


def test_marks_of_another_size_are_refused(pixels: np.ndarray, mask: np.ndarray) -> None:
    for value, mask_image in ((held(pixels, mask.T), None), (held(pixels, mask), Image.fromarray(mask.T))):
        with pytest.raises(InvalidInputError, match=r"^The mask is 24 x 30 pixels and the image 30 x 24"):
            marked(value, mask_image)


# ---------------------------------------------------------------- what the page itself puts into the editor


def test_strokes_have_the_colour_of_the_brush_and_the_photograph_is_seen_through_them(mask: np.ndarray) -> None:
    strokes = np.asarray(strokes_over(mask))
    assert strokes.shape == (HEIGHT, WIDTH, 4)
    assert (strokes[mask] == (*STROKE_COLOUR, 178)).all() and not strokes[~mask].any()


def test_what_is_given_to_the_editor_comes_back_from_it(tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    photograph = save_picture(Image.fromarray(pixels), tmp_path, "photograph")
    strokes = save_picture(strokes_over(mask), tmp_path, "strokes")
    value = editor_value(photograph, strokes)
    assert value == {"background": photograph, "layers": [strokes], "composite": None}
    assert editor_value(photograph) == {**value, "layers": []}
    with Image.open(photograph) as background, Image.open(strokes) as layer:
        shown, marks = marked({**held(background), "layers": [layer]}, None)
    assert np.array_equal(shown, pixels) and np.array_equal(marks, mask)


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
    write_png_that_claims(path, 6000, 5000)
    Image.new("RGBA", (8, 8)).save(good)
    expected = (
        "The picture has 30.0 megapixels, and this page takes up to 25: reduce it, or fill it on the command line."
    )
    with pytest.raises(InvalidInputError) as refused:
        check_photograph_file(str(path), Limits())
    assert str(refused.value) == expected
    for value in (EditorData(background=sent(path)), EditorData(background=sent(good), layers=[sent(path)])):
        with pytest.raises(gr.Error) as toast:
            check_editor(value, Limits())
        assert toast.value.message == expected


@pytest.mark.parametrize("megapixels", [25, 1e15])
@pytest.mark.parametrize("side", [20000, 60000, 2**31 - 1])
def test_a_bomb_is_refused_even_where_no_limit_would(tmp_path: Path, side: int, megapixels: float) -> None:
    path = tmp_path / "bomb.png"
    write_png_that_claims(path, side, side)
    with pytest.raises(InvalidInputError, match=r"bomb\.png has more than \d+ pixels, too many to be decoded safely"):
        check_photograph_file(str(path), Limits(megapixels=megapixels))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_every_cut_of_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(make_pixels(40, 40)).save(whole)
    check_photograph_file(str(whole), Limits())
    contents = whole.read_bytes()
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


@pytest.mark.parametrize(("name", "said"), [("mine.png", "mine.png"), (None, "The file")])
def test_a_file_is_refused_by_its_senders_name_for_it(tmp_path: Path, name: str | None, said: str) -> None:
    bad, good = tmp_path / "stored.png", tmp_path / "good.png"
    bad.write_text("not a picture")
    Image.new("RGBA", (8, 8)).save(good)
    files = sent(bad, name), sent(good)
    for value in (EditorData(background=files[0]), EditorData(background=files[1], layers=[files[0]])):
        with pytest.raises(gr.Error) as refused:
            check_editor(value, Limits())
        assert refused.value.message.startswith(f"{said} is not an image") and str(tmp_path) not in str(refused.value)
        assert refused.value.title == "That can't be done" and not refused.value.print_exception


@pytest.mark.parametrize("mode", ["CMYK", "I;16"])
def test_what_the_editor_would_change_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "stored.tif"
    in_mode(mode).save(path)
    with pytest.raises(gr.Error) as refused:
        check_editor(EditorData(background=sent(path)), Limits())
    assert refused.value.message == (
        f"Images of mode {mode} can't be edited in the browser: convert it to RGB, or use the API."
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_what_the_editor_holds_passes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "stored.png"
    in_mode(mode).save(path)
    check_editor(EditorData(background=sent(path), layers=[sent(path)]), Limits())


def test_nothing_sent_is_nothing_to_refuse() -> None:
    read: list[str] = []
    refuse_unless(None, read.append)
    assert read == []
    check_editor(None, Limits())
    check_editor(EditorData(background=None, layers=[]), Limits())


def test_an_editor_has_one_layer_and_its_composite_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "stored.png"
    in_mode("RGBA").save(path)
    value = EditorData(background=sent(path), layers=[sent(path)], composite=sent(tmp_path / "missing.png"))
    check_editor(value, Limits())
    assert value.composite is None
    with pytest.raises(gr.Error, match="The editor has only one layer to paint on"):
        check_editor(EditorData(background=sent(path), layers=[sent(path)] * 2), Limits())


# ---------------------------------------------------------------- components


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Any]:
    """A component whose uploads lie in `tmp_path / "uploads"`."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    return lambda kind: kind(type="pil")


def test_a_component_reads_nothing_that_was_refused(component: Callable[[type], Any], tmp_path: Path) -> None:
    image, seen = component(gr.Image), []
    image.preprocess = lambda value: seen.append("read") or "a picture"
    good, bad = (ImageData(path=str(tmp_path / "uploads" / name)) for name in ("good.png", "bad.png"))

    def check(value: ImageData) -> None:
        seen.append("checked")
        if value is bad:
            raise gr.Error("no")

    checked_first(image, check)
    assert image.preprocess(good) == "a picture"
    with pytest.raises(gr.Error, match="no"):
        image.preprocess(bad)
    assert seen == ["checked", "read", "checked"]


@pytest.mark.parametrize("name", ["secret.png", "uploads/../secret.png", "/etc/hostname", "uploads/link.png", None])
def test_only_what_was_uploaded_comes_to_a_component(
    component: Callable[[type], Any], tmp_path: Path, name: str | None
) -> None:
    in_mode("RGBA").save(tmp_path / "secret.png")
    (tmp_path / "uploads" / "link.png").symlink_to(tmp_path / "secret.png")
    in_mode("RGBA").save(tmp_path / "uploads" / "good.png")
    path = None if name is None else str(tmp_path / name)
    good = sent(tmp_path / "uploads" / "good.png")
    for kind, forged in (
        (gr.Image, [ImageData(path=path, url="data:image/png;base64,iVBORw0KGgo=")]),
        (
            gr.ImageEditor,
            [
                EditorData(background=FileData.model_construct(path=path)),
                EditorData(background=good, layers=[FileData.model_construct(path=path)]),
                EditorData(background=good, composite=FileData.model_construct(path=path)),
            ],
        ),
    ):
        guarded = component(kind)
        checked_first(guarded, lambda value: None)
        for value in forged:
            with pytest.raises(gr.Error, match=r"^'Only files that were uploaded to this page are taken"):
                guarded.preprocess(value)
    guarded = component(gr.ImageEditor)
    checked_first(guarded, lambda value: None)
    assert guarded.preprocess(EditorData(background=good))["background"].size == in_mode("RGBA").size


def test_nothing_is_downloaded_for_a_component(component: Callable[[type], Any]) -> None:
    image = component(gr.Image)
    checked_first(image, lambda value: None)
    for address in ("http://127.0.0.1:1/large.png", "https://example.org/large.png"):
        with pytest.raises(gr.Error, match="Only files that were uploaded"):
            asyncio.run(image.async_move_resource_to_block_cache(address))


# ---------------------------------------------------------------- results


def test_a_fill_is_kept_as_long_as_its_files_are(tmp_path: Path, pixels: np.ndarray) -> None:
    before = save_picture(Image.fromarray(pixels), tmp_path, "before")
    results = save_results([Image.fromarray(pixels)] * 2, "mine.png", tmp_path)
    filled = Filled("mine.png", before, tuple(results), chosen=1)
    assert filled.result == results[1] and filled.is_kept()
    Path(results[0]).unlink()
    assert filled.is_kept()
    Path(results[1]).unlink()
    assert not filled.is_kept()


# ---------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("name", "mode", "suffix"),
    [
        ("a.jpg", "RGB", ".jpg"),
        ("A.JPEG", "L", ".jpeg"),
        ("a.webp", "RGBA", ".webp"),
        ("a.tiff", "RGB", ".tiff"),
        ("a.jpg", "CMYK", ".jpg"),
        ("a.tif", "CMYK", ".tif"),
        ("../a.jpg", "RGB", ".jpg"),
        ("a.png", "RGB", None),  # PNG is offered anyway
        ("A.PNG", "RGB", None),
        ("a", "RGB", None),
        ("", "RGB", None),
        ("a.heic", "RGB", None),
        ("a.jpg.exe", "RGB", None),
        ("a.jpg", "RGBA", None),  # JPEG has no transparency
        ("a.jpg", "P", None),
        ("a.bmp", "RGBA", None),
        ("a.webp", "CMYK", None),
    ],
)
def test_the_own_format_is_offered_where_it_holds_the_result(name: str, mode: str, suffix: str | None) -> None:
    assert own_suffix(name, Image.new(mode, (8, 8))) == suffix


def test_webp_is_offered_up_to_its_longest_side() -> None:
    assert own_suffix("a.webp", Image.new("RGB", (16383, 1))) == ".webp"
    assert own_suffix("a.webp", Image.new("RGB", (16384, 1))) is None


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("holiday.jpg", "holiday"),
        ("a b;c'd.png", "a-b-c-d"),
        ("a, b (2).png", "a-b-2"),
        ("Übung.png", "Übung"),
        ("x" * 300 + ".png", "x" * 60),
        ("", "photograph"),
        (".", "photograph"),
        ("..", "photograph"),
        ("....", "photograph"),
        ("/", "photograph"),
        ("\ud800.png", "photograph"),
        ("/etc/passwd", "passwd"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x.png", "x"),
        ("a\0b.png", "a-b"),
        ("\u202egnp.exe", "gnp"),
        ("-rf", "rf"),
        ("$(x).png", "x"),
    ],
)
def test_no_name_is_harmful_or_leaves_the_folder(tmp_path: Path, name: str, stem: str) -> None:
    names = [f"{stem}-filled.png", f"{stem}-filled-2.png"]
    assert [filled_name(name, ".png"), filled_name(name, ".png", 2)] == names
    paths = save_results([Image.new("L", (2, 2))] * 2, name, tmp_path)
    assert paths == [str(tmp_path / name) for name in names]
    assert sorted(tmp_path.iterdir()) == sorted(map(Path, paths))


@pytest.mark.parametrize("letter", ["x", "é", "字", "\U00020000"])
def test_the_longest_name_fits_every_file_system(tmp_path: Path, letter: str) -> None:
    paths = save_results([Image.new("L", (2, 2))] * 4, letter * 300 + ".webp", tmp_path, ".webp")
    assert all(Path(path).is_file() and len(Path(path).name.encode()) <= 255 for path in paths)
    assert len(set(paths)) == 4 and Path(paths[0]).name == letter * 60 + "-filled.webp"


@pytest.mark.parametrize(
    ("mode", "suffix", "written"),
    [
        ("RGB", None, ".png"),
        ("CMYK", None, ".tif"),
        ("RGB", ".png", ".png"),
        ("RGB", ".tif", ".tif"),
        ("RGB", ".tiff", ".tiff"),
        ("RGB", ".webp", ".webp"),
        ("RGB", ".bmp", ".bmp"),
    ],
)
def test_every_format_but_jpeg_keeps_every_pixel(tmp_path: Path, mode: str, suffix: str | None, written: str) -> None:
    images = [Image.fromarray(make_pixels(HEIGHT, WIDTH, seed)).convert(mode) for seed in range(3)]
    paths = save_results(images, "mine.jpg", tmp_path, suffix)
    assert [Path(path).name for path in paths] == [f"mine-filled{number}{written}" for number in ("", "-2", "-3")]
    assert all(np.array_equal(pixels_of(path), image) for path, image in zip(paths, images, strict=True))


def test_jpeg_loses_as_little_as_it_can(tmp_path: Path, pixels: np.ndarray) -> None:
    (path,) = save_results([Image.fromarray(pixels)], "mine.jpg", tmp_path, ".jpg")
    Image.fromarray(pixels).save(tmp_path / "expected.jpg", quality=95, subsampling=0)
    assert Path(path).name == "mine-filled.jpg" and np.array_equal(
        pixels_of(path), pixels_of(tmp_path / "expected.jpg")
    )
    with Image.open(path) as saved:
        assert saved.format == "JPEG"


@pytest.mark.parametrize("suffix", [None, ".webp"])
def test_transparency_and_the_colour_profile_are_saved(tmp_path: Path, suffix: str | None) -> None:
    """WebP forgets the colours under what is transparent unless it is told not to."""
    image = in_mode("RGBA", HEIGHT, WIDTH)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (path,) = save_results([image], "mine.png", tmp_path, suffix)
    with Image.open(path) as saved:
        assert saved.mode == "RGBA" and np.array_equal(saved, image)
        assert saved.info["icc_profile"] == image.info["icc_profile"]


def test_files_of_visitors_have_folders_that_no_one_guesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    first, second = folder_for_visitor(), folder_for_visitor()
    assert first != second and first.is_dir() and first.parent == tmp_path / "gradio" and len(first.name) > 32

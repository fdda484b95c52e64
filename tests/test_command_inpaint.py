"""`python -m hvq_inpaint inpaint` on a photograph: results, exit status, a sentence for each refusal, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import contents, make_pixels, pixels_of
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from hvq_inpaint import HVQInpainter, commands
from hvq_inpaint.__main__ import main
from hvq_inpaint.pretrained import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent


def test_inpaint_keeps_known_pixels_bit_for_bit(workplace, model_folder, capsys):
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png", "--model", model_folder]) == 0
    assert capsys.readouterr().out == "wrote filled.png\n"
    photo, filled, mask = pixels_of("photo.png"), pixels_of("filled.png"), pixels_of("mask.png")
    assert filled.shape == photo.shape
    assert np.array_equal(filled[~mask], photo[~mask])
    assert not np.array_equal(filled[mask], photo[mask])
    expected = HVQInpainter.from_pretrained(model_folder).inpaint("photo.png", "mask.png").image
    assert np.array_equal(filled, np.array(expected))
    assert sorted(contents(workplace)) == ["filled.png", "mask.png", "photo.png"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".PNG"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_every_lossless_format_keeps_known_pixels(workplace, model_folder, suffix, mode):
    picture = Image.fromarray(make_pixels(37, 50)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(make_pixels(37, 50, 1)[..., 0] // 64 * 64))  # fully transparent pixels as well
    picture.save("photo.png")
    assert (
        main(["inpaint", "photo.png", "--mask", "mask.png", "--out", f"filled{suffix}", "--model", model_folder]) == 0
    )
    known = ~pixels_of("mask.png")
    with Image.open(f"filled{suffix}") as filled:
        assert np.array_equal(np.array(filled.convert(mode))[known], np.array(picture)[known])


def test_colour_profile_and_exif_are_kept(workplace, model_folder):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a photograph"
    Image.open("photo.png").save("photo.png", icc_profile=profile, exif=exif)
    for name in ("filled.png", "filled.jpg", "filled.webp", "filled.tif"):
        assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", name, "--model", model_folder]) == 0
        with Image.open(name) as filled:
            assert filled.info["icc_profile"] == profile
            assert filled.getexif()[0x010E] == "a photograph"


def test_jpeg_is_written_with_a_note(workplace, model_folder, capsys):
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.jpg", "--model", model_folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wrote filled.jpg"
    assert len(lines) == 2
    assert "re-encodes" in lines[1]


def test_bmp_is_written_with_a_note(workplace, model_folder, capsys):
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.bmp", "--model", model_folder]) == 0
    assert "note: BMP has no place for a colour profile or EXIF" in capsys.readouterr().out


def test_several_results_and_all_stages(workplace, model_folder):
    arguments = [
        "inpaint",
        "photo.png",
        "--mask",
        "mask.png",
        "--out",
        "out/filled.png",
        "--model",
        model_folder,
        "--num-results",
        "3",
        "--seed",
        "4",
    ]
    assert main([*arguments, "--stages", "stages"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["filled-2.png", "filled-3.png", "filled.png"]
    result = HVQInpainter.from_pretrained(model_folder).inpaint("photo.png", "mask.png", seed=4, num_results=3)
    for name, image in zip(("filled.png", "filled-2.png", "filled-3.png"), result.images, strict=True):
        assert np.array_equal(pixels_of(Path("out", name)), np.array(image))
    assert {path.stem for path in Path("stages").iterdir()} == {*result.stages, "crops"}
    assert json.loads(Path("stages/crops.json").read_text()) == [{"box": [0, 0, 50, 37], "working_size": [37, 50]}]
    for path in (path for path in Path("stages").iterdir() if path.suffix != ".json"):
        stage = pixels_of(path) if path.suffix == ".png" else np.load(path)
        assert np.array_equal(stage, np.array(result.stages[path.stem]))


def test_overwrite_must_be_said(workplace, model_folder, refused):
    arguments = ["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png", "--model", model_folder]
    Path("filled.png").write_text("mine")
    assert "exists already" in refused(*arguments)
    assert main([*arguments, "--overwrite"]) == 0
    assert pixels_of("filled.png").shape == (37, 50, 3)
    Path("stages").mkdir()
    Path("stages/coarse.png").write_text("mine")
    assert "stages/coarse.png exists already" in refused(
        *arguments[:5], "other.png", *arguments[6:], "--stages", "stages"
    )


def test_bundled_model_is_the_default(workplace, model_folder, monkeypatch, refused):
    monkeypatch.setattr(commands, "BUNDLED_MODEL", workplace / "no_model")
    message = refused("inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png")
    assert DEFAULT_MODEL in message and "hub/model in a clone" in message and "--model" in message
    monkeypatch.setattr(commands, "BUNDLED_MODEL", Path(model_folder))
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png"]) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "missing.png"}, "There is no file or folder missing.png"),
        ({"image": "broken.png"}, "broken.png"),
        ({"--mask": "missing.png"}, "There is no file or folder missing.png"),
        ({"--mask": "small.png"}, "same width and height"),
        ({"--mask": "black.png"}, "The mask is empty"),
        ({"--out": "filled.gif"}, "must end in one of"),
        ({"--out": "filled"}, "must end in one of"),
        ({"--out": "photo.png/filled.png"}, "is a file"),
        ({"--out": "folder.png"}, "is a folder"),
        ({"--model": "./no/such/folder"}, "There is no model folder"),
        ({"--model": "a model"}, "neither a model folder nor"),
        ({"--model": "empty_model"}, "empty_model"),
        ({"--model": "torn_model"}, "torn_model"),
        ({"--model": "bad_config"}, "can't be used"),
        ({"--device": "toaster"}, "There is no device 'toaster'"),
        ({"--device": "cuda:99"}, "so there is no cuda:99"),
        ({"--num-results": "0"}, "at least 1"),
        ({"--seed": "-1"}, "The seed must be a whole number from 0"),
        ({"--dilate": "-1", "--model": "empty_model"}, "dilate must be at least 0"),
        ({"--working-size": "30", "--model": "empty_model"}, "at least 64"),
        ({"image": "glass.png", "--out": "filled.jpg"}, "JPEG has no transparency"),
    ],
)
def test_what_inpaint_refuses(workplace, model_folder, refused, changes, words):
    Path("broken.png").write_bytes(Path("photo.png").read_bytes()[:500])
    Image.new("L", (5, 5), 255).save("small.png")
    Image.new("L", (50, 37), 0).save("black.png")
    Image.new("RGBA", (50, 37)).save("glass.png")
    for folder in ("folder.png", "empty_model", "torn_model", "bad_config"):
        Path(folder).mkdir()
    for name in ("config.json", "model.safetensors"):
        Path("torn_model", name).write_bytes(Path(model_folder, name).read_bytes()[:2000])
        Path("bad_config", name).write_bytes(Path(model_folder, name).read_bytes()[:50])
    arguments = {"image": "photo.png", "--mask": "mask.png", "--out": "filled.png", "--model": model_folder, **changes}
    assert words in refused("inpaint", arguments.pop("image"), *(text for pair in arguments.items() for text in pair))


def test_what_cannot_be_held_by_the_format_is_refused_before_the_work(workplace, refused):
    pixels = Image.open("photo.png")
    pixels.convert("RGBA").save("glass.png")
    pixels.save("key.png", transparency=(1, 2, 3))
    pixels.quantize(8).save("palette.png", transparency=2)
    for name, suffixes in (
        ("glass.png", (".bmp", ".jpg")),
        ("key.png", (".tif", ".webp", ".bmp", ".jpg")),
        ("palette.png", (".tif", ".webp", ".bmp", ".jpg")),
    ):
        for suffix in suffixes:
            arguments = ("inpaint", name, "--mask", "mask.png", "--out", f"filled{suffix}", "--model", "none/here")
            assert "let the result end in .png" in refused(*arguments)
    Image.new("RGB", (9, 16400)).save("long.png")
    Image.new("L", (9, 16400)).save("long_mask.png")
    with Image.open("long_mask.png") as image:
        image.paste(255, (2, 2, 5, 5))
        image.save("long_mask.png")
    arguments = ("inpaint", "long.png", "--mask", "long_mask.png", "--out", "filled.webp", "--model", "none/here")
    assert "16383 pixels a side" in refused(*arguments)


def test_a_resolution_of_nothing_is_left_out(workplace, model_folder):
    with Image.open("photo.png") as image:
        tags = {282: IFDRational(0, 0), 283: IFDRational(1, 0), 296: 2}
        image.save("photo.tif", tiffinfo=tags)
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        arguments = ["inpaint", "photo.tif", "--mask", "mask.png", "--out", f"filled{suffix}", "--model", model_folder]
        assert main(arguments) == 0


def test_names_that_the_terminal_cannot_show(workplace, model_folder):
    Path("photo.png").rename("ü 日本.png")
    arguments = ["inpaint", "ü 日本.png", "--mask", "mask.png", "--out", "日.png", "--model", model_folder]
    done = subprocess.run(
        [sys.executable, "-m", "hvq_inpaint", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"wrote \\u65e5.png\n"


def test_stopping_is_no_traceback(workplace, monkeypatch, capfd):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "load_model", interrupted)
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png"]) == 130
    assert capfd.readouterr().err == "stopped\n"


def test_a_name_as_long_as_names_can_be(workplace, model_folder):
    out = f"{'x' * 251}.png"
    assert main(["inpaint", "photo.png", "--mask", "mask.png", "--out", out, "--model", model_folder]) == 0
    assert Path(out).is_file()


def test_an_empty_name_is_not_the_current_folder(workplace, capsys):
    for arguments in (
        ["", "--out", "a.png"],
        ["photo.png", "--out", ""],
        ["photo.png", "--out", "a.png", "--mask", ""],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["inpaint", *arguments])
        assert stopped.value.code == 2
        assert "an empty name" in capsys.readouterr().err


def test_a_read_only_folder_is_refused_before_the_work(workplace, refused, monkeypatch):
    Path("locked").mkdir()
    access = os.access  # whoever runs the tests may be allowed to write everywhere

    def refuses(path: str | Path, mode: int) -> bool:
        return Path(path).name != "locked" and access(path, mode)

    monkeypatch.setattr(os, "access", refuses)
    arguments = ("inpaint", "photo.png", "--mask", "mask.png", "--model", "none/here", "--out")
    assert "locked is not writable" in refused(*arguments, "locked/filled.png")
    assert "locked is not writable" in refused(*arguments, "locked/new/filled.png")
    assert "locked is not writable" in refused(*arguments, "filled.png", "--stages", "locked/stages")


def test_a_folder_that_turns_out_to_be_read_only_leaves_nothing(workplace, model_folder, monkeypatch, refused):
    def forbidden(image: Image.Image, path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image.Image, "save", forbidden)
    arguments = ("inpaint", "photo.png", "--mask", "mask.png", "--model", model_folder, "--out", "filled.png")
    assert "Permission denied" in refused(*arguments)


def test_a_full_disk_leaves_nothing(workplace, model_folder, monkeypatch, refused):
    save = Image.Image.save

    def save_half(image: Image.Image, path: Path, **options: object) -> None:
        save(image, path, **options)
        if "filled-2" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_half)
    assert "No space left" in refused(
        "inpaint",
        "photo.png",
        "--mask",
        "mask.png",
        "--out",
        "filled.png",
        "--model",
        model_folder,
        "--num-results",
        "2",
    )


def test_without_a_mask_the_transparent_part_is_filled(workplace, model_folder, refused):
    mask, image = pixels_of("mask.png"), Image.open("photo.png").convert("RGBA")
    assert "no transparency" in refused("inpaint", "photo.png", "--out", "filled.png", "--model", model_folder)
    image.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
    image.save("glass.png")
    assert main(["inpaint", "glass.png", "--out", "filled.png", "--model", model_folder]) == 0
    filled = pixels_of("filled.png")
    assert (filled[..., 3] == 255).all() and np.array_equal(filled[~mask], np.array(image)[~mask])

"""The command line as a person uses it: results, exit status, one sentence for each refusal, nothing left behind."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model, make_pixels, random_alexnet
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational
from safetensors.torch import save_file

import hvq_inpaint
from hvq_inpaint import HVQInpainter, commands
from hvq_inpaint.__main__ import main, make_parser
from hvq_inpaint.commands import find_device
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation import evaluate as evaluate_module
from hvq_inpaint.files import all_or_nothing
from hvq_inpaint.masks import random_walk_mask
from hvq_inpaint.quantizer import EMAQuantizer

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `photo.png` of 50 x 37 pixels and `mask.png`."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Image.fromarray(make_pixels(37, 50)).save("photo.png")
    Image.fromarray(random_walk_mask(37, 50, 0.2, 0)).save("mask.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def refused(workplace: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused: exit status 1, one sentence, nothing written. Returns the sentence."""

    def run(*arguments: str) -> str:
        before = contents(workplace)
        capfd.readouterr()
        assert main(arguments) == 1
        output, error = capfd.readouterr()
        assert output == ""
        lines = error.splitlines()
        assert len(lines) == 1, error
        assert lines[0].startswith("error: ")
        assert contents(workplace) == before
        return lines[0]

    return run


# ---------------------------------------------------------------- inpaint


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
    assert "--model" in refused("inpaint", "photo.png", "--mask", "mask.png", "--out", "filled.png")
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
        ({"--seed": "-1"}, "The seed must lie between"),
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


# ---------------------------------------------------------------- evaluate


def evaluate_arguments(model_folder: str, image_folder: Path) -> list[str]:
    small = ["--mask-kind", "random_walk", "box", "--buckets", "10-20", "50-60", "--size", "32", "--limit", "2"]
    return ["evaluate", model_folder, "--dataset", str(image_folder), *small, "--metrics", "psnr_hole", "ssim"]


def test_evaluate_writes_its_files_and_says_the_same_twice(workplace, model_folder, image_folder, capsys):
    arguments = evaluate_arguments(model_folder, image_folder)
    assert main([*arguments, "--out", "first"]) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, "--out", "second"]) == 0
    names = ["evaluation.json", "evaluation.md", "grid.png"]
    assert sorted(path.name for path in Path("first").iterdir()) == names
    for name in names:
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()
    document = json.loads(Path("first/evaluation.json").read_text())
    assert document["number_of_images"] == 2
    assert document["settings"]["model"] == model_folder
    assert document["settings"]["dataset"] == str(image_folder)
    assert set(document["figures"]) == {"random_walk", "box"}
    assert f"{document['figures']['box']['refined']['mean']['psnr_hole']:.2f}" in printed
    assert "OpenCV Telea" in printed


def test_evaluate_in_two_processes_gives_the_same_figures(workplace, model_folder, image_folder):
    save_file(random_alexnet(), "alexnet.safetensors")
    arguments = [*evaluate_arguments(model_folder, image_folder), "--limit", "5", "--batch-size", "2", "--size", "48"]
    # FD as well: one process only makes it of what all have measured.
    arguments += ["--metrics", "psnr_hole", "lpips", "fd", "--lpips-weights", "alexnet.safetensors"]
    assert main([*arguments, "--out", "alone"]) == 0
    # 'accelerate launch --cpu' would start one process without a word.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hvq_inpaint"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launch, *arguments, "--out", "together"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote ") == 3  # by one of them only
    assert contents(Path("together")) == contents(Path("alone"))


def test_evaluate_goes_on_where_it_was_broken_off(workplace, model_folder, image_folder, monkeypatch):
    arguments = [*evaluate_arguments(model_folder, image_folder), "--limit", "3", "--batch-size", "1"]
    assert main([*arguments, "--out", "whole"]) == 0
    measured, real = [], evaluate_module._measure_batch

    def breaks_off(model, batch, *rest):
        measured.extend(batch.indices)
        if len(measured) == 6:  # under the second of four masks
            raise KeyboardInterrupt
        return real(model, batch, *rest)

    monkeypatch.setattr(evaluate_module, "_measure_batch", breaks_off)
    assert main([*arguments, "--out", "broken"]) == 130
    assert sorted(path.name for path in Path("broken").iterdir()) == ["records"]
    Path("broken/evaluation.md").write_text("of an older evaluation, which --overwrite was to replace")
    assert main([*arguments, "--out", "broken", "--seed", "1"]) == 1  # other settings
    assert main([*arguments, "--out", "broken"]) == 0
    assert measured == [0] * 4 + [2] * 2 + [2] * 4 + [5] * 4
    assert contents(Path("broken")) == contents(Path("whole"))


def test_evaluate_exports_what_another_method_needs(workplace, model_folder, image_folder):
    arguments = evaluate_arguments(model_folder, image_folder)
    assert main([*arguments, "--out", "first", "--export", "pictures"]) == 0
    Path("pictures/refined").rename("pictures/other")
    assert main([*arguments, "--out", "second", "--outputs", "pictures/other"]) == 0
    figures = json.loads(Path("second/evaluation.json").read_text())["figures"]["box"]
    assert figures["other"] == figures["refined"]


def test_evaluate_tells_which_metrics_it_leaves_out(workplace, model_folder, image_folder, monkeypatch, capfd):
    def fails(self, *_):
        raise InvalidInputError("It can't be downloaded.")

    monkeypatch.setattr("hvq_inpaint.metrics.LPIPS.__init__", fails)
    monkeypatch.setattr("hvq_inpaint.metrics.InceptionFeatures.__init__", fails)
    arguments = evaluate_arguments(model_folder, image_folder)
    assert main(arguments[: arguments.index("--metrics")]) == 0
    assert "note: LPIPS is left out: It can't be downloaded." in capfd.readouterr().err
    document = json.loads(Path("evaluation/evaluation.json").read_text())
    assert document["settings"]["metrics"] == ["psnr", "psnr_hole", "ssim", "l1", "l1_hole"]
    assert set(document["left_out"]) == {"lpips", "fd", "fid"}


def test_evaluate_refuses_to_overwrite(workplace, model_folder, image_folder, refused):
    Path("evaluation").mkdir()
    Path("evaluation/evaluation.md").write_text("mine")
    assert "exists already" in refused(*evaluate_arguments(model_folder, image_folder))
    assert main([*evaluate_arguments(model_folder, image_folder), "--overwrite", "--no-opencv"]) == 0
    assert "OpenCV" not in Path("evaluation/evaluation.md").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--dataset", "./nowhere"], "There is no dataset at ./nowhere"),
        (["--dataset", "empty"], "hold no images"),
        (["--dataset", "broken"], "broken/torn.png"),
        (["--buckets", "ten"], "such as 10-20"),
        (["--buckets", "20-10"], "low < high"),
        (["--buckets", "0-10"], "low < high"),
        (["--mask-kind", "stripes"], "no mask kind stripes"),
        (["--size", "33"], "multiple of 8"),
        (["--limit", "0"], "limit"),
        (["--batch-size", "0"], "batch size"),
        (["--device", "cuda:99"], "so there is no cuda:99"),
        (["--out", "photo.png"], "is a file"),
        (["--metrics", "beauty"], "no metric beauty"),
        (["--metrics", "lpips", "--lpips-weights", "nowhere"], "no file nowhere"),
        (["--mask-kind", "files"], "needs a folder of masks, with --masks"),
        (["--export", "empty", "--out", "photo.png"], "is a file"),
        (["--dataset", "torn.parquet"], "torn.parquet can't be read"),
        (["--masks", "empty"], "The masks of empty are not used"),
        (["--outputs", "somewhere"], "There is no picture somewhere/random_walk/10-20/00000.png"),
    ],
)
def test_what_evaluate_refuses(workplace, model_folder, image_folder, refused, more, words):
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("torn.parquet").write_bytes(b"PAR1 torn")
    Path("broken/torn.png").write_bytes(Path("photo.png").read_bytes()[:500])
    assert words in refused(*evaluate_arguments(model_folder, image_folder), *more)


def test_evaluate_without_opencv_says_how_to_install_it(workplace, model_folder, image_folder, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "pip install opencv-python-headless" in refused(*evaluate_arguments(model_folder, image_folder))


# ---------------------------------------------------------------- masks


def test_masks_writes_the_set(workplace, capsys):
    arguments = [
        "masks",
        "--out",
        "set",
        "--per-ratio",
        "2",
        "--size",
        "24",
        "--min-percent",
        "30",
        "--max-percent",
        "31",
        "--seed",
        "3",
        "--workers",
        "1",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "wrote 4 masks to set\n"
    assert np.array_equal(pixels_of("set/random_walk/31/0001.png"), random_walk_mask(24, 24, 0.31, 3_000_001))
    assert len(list(Path("set").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--out", "."], "is not empty"),
        (["--out", "photo.png"], "is a file"),
        (["--kind", "stripes"], "no mask kind 'stripes'"),
        (["--per-ratio", "0"], "masks for each ratio"),
        (["--max-percent", "100"], "percentages"),
        (["--workers", "0"], "workers"),
        (["--seed", "-1"], "negative"),
    ],
)
def test_what_masks_refuses(refused, more, words):
    assert words in refused("masks", "--out", "set", "--size", "16", *more)


# ---------------------------------------------------------------- the rest


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(["--version"])
    assert exit_status.value.code == 0
    assert capsys.readouterr().out == f"hvq-inpaint {hvq_inpaint.__version__}\n"


@pytest.mark.parametrize("command", ["inpaint", "evaluate", "ablate", "masks"])
def test_help_names_every_default(command, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main([command, "--help"])
    assert exit_status.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    subparser = next(
        action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ).choices[command]
    for action in subparser._actions:
        if action.option_strings and not action.required and action.dest not in ("help", "no_opencv"):
            assert "(default: " in action.help, action.dest
        if isinstance(action.default, (int, Path)) and not isinstance(action.default, bool):
            assert f"(default: {action.default})" in text


def test_commands_import_nothing_slow_before_they_run():
    code = (
        "import sys, types, importlib.util as u; p = u.find_spec('hvq_inpaint').submodule_search_locations; "
        "m = types.ModuleType('hvq_inpaint'); m.__path__ = p; m.__version__ = '0'; sys.modules['hvq_inpaint'] = m; "
        "import hvq_inpaint.__main__, hvq_inpaint.mask_set; "
        "slow = ('torch', 'torchmetrics', 'huggingface_hub', 'cv2', 'datasets'); "
        "print([name for name in slow if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_devices():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:", "cuda:x", "cpu:1", "meta", ""):
        with pytest.raises(InvalidInputError):
            find_device(name)


def test_all_or_nothing(tmp_path):
    with pytest.raises(InvalidInputError), all_or_nothing() as partial:
        partial(tmp_path / "first").write_text("new")
        partial(tmp_path / "second").write_text("new")
        raise InvalidInputError("no")
    assert list(tmp_path.iterdir()) == []
    with all_or_nothing() as partial:
        for name in ("first", "second"):
            partial(tmp_path / name).write_text("new")
        assert not (tmp_path / "first").exists()
    assert contents(tmp_path) == {"first": b"new", "second": b"new"}


# ---------------------------------------------------------------- inpaint: folders


@pytest.fixture
def folders(workplace: Path) -> Path:
    """`photos` and `masks`: three good ones, one of them in a sub-folder, and four that can't be filled."""
    for name, mode in (("a.png", "RGB"), ("sub/b.jpg", "RGB"), ("c.tif", "CMYK"), ("lonely.png", "RGB")):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_pixels(37, 50, len(name))).convert(mode).save(path)
    Path("photos/text.png").write_text("no picture")
    shutil.copy("photos/a.png", "photos/Ünicode ☃.png")
    shutil.copy("photos/a.png", "photos/wrong.png")
    shutil.copy("photos/sub/b.jpg", "photos/a.jpg")  # a.png is there as well
    for name in ("a", "sub/b", "c", "text", "Ünicode ☃"):
        path = Path("masks", f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("mask.png", path)
    Image.new("L", (5, 5), 255).save("masks/wrong.png")
    return workplace


FILLED = ["a.png", "c.tif", "sub", "sub/b.png", "Ünicode ☃.png"]


def folder_arguments(model_folder: str, *more: str) -> list[str]:
    return ["inpaint", "photos", "--masks", "masks", "--out", "filled", "--model", model_folder, *more]


def check_folder(error: str) -> None:
    assert sorted(contents(Path("filled"))) == sorted(FILLED)
    for line, (name, words) in zip(
        error.splitlines(),
        [
            ("photos/a.png", "would have the name of one for photos/a.jpg"),
            ("photos/lonely.png", "There is no mask for it in masks"),
            ("photos/text.png", "is not an image"),
            ("photos/wrong.png", "same width and height"),
        ],
        strict=True,
    ):
        assert line.startswith(f"error: {name} was not filled: ") and words in line
    mask = pixels_of("mask.png")
    for photo, filled in (("a.jpg", "a.png"), ("c.tif", "c.tif"), ("sub/b.jpg", "sub/b.png")):
        assert np.array_equal(pixels_of(Path("photos", photo))[~mask], pixels_of(Path("filled", filled))[~mask])


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_a_folder_is_filled_and_bad_files_are_told_at_the_end(folders, model_folder, capsys, batch_size):
    assert main(folder_arguments(model_folder, "--batch-size", batch_size)) == 1
    output, error = capsys.readouterr()
    assert output == "wrote 4 files to filled\n"
    check_folder(error)


def test_further_results_do_not_take_the_names_of_other_photographs(workplace, model_folder, capsys):
    Path("photos").mkdir()
    for name in ("x.png", "x-2.jpg", "y.png"):
        Image.fromarray(make_pixels(37, 50)).save(Path("photos", name))
    arguments = ["inpaint", "photos", "--mask", "mask.png", "--out", "filled", "--model", model_folder]
    assert main([*arguments, "--num-results", "2", "--batch-size", "4"]) == 1
    assert "have the name of one for" in capsys.readouterr().err
    assert len(contents(Path("filled"))) == 4
    assert main([*arguments, "--overwrite"]) == 0  # with one result each there is no trouble
    assert len(contents(Path("filled"))) == 5


@pytest.mark.parametrize("absolute", [False, True])
def test_results_may_go_beside_the_photographs_or_above_them(folders, model_folder, absolute):
    for name in ("text.png", "wrong.png", "a.png", "lonely.png", "c.tif"):
        Path("photos", name).unlink()
    Path("photos/Ünicode ☃.png").rename("photos/Ünicode ☃.bmp")
    for out in (".", "photos"):
        target = str(Path(out).resolve()) if absolute else out
        arguments = ["inpaint", "photos", "--masks", "masks", "--out", target, "--model", model_folder]
        assert main(arguments) == 0
        assert Path(out, "a.png").is_file() and Path(out, "sub/b.png").is_file()
        for path in (*Path(out).glob("a.png"), *Path(out).glob("sub/*.png")):
            path.unlink()


def test_stages_of_results_in_the_current_folder_go_beside_it(workplace, model_folder):
    Image.open("photo.png").save("other.bmp")
    Path("here").mkdir()
    os.chdir("here")
    arguments = ["inpaint", "../other.bmp", "--mask", "../mask.png", "--out", ".", "--stages", "--model", model_folder]
    assert main(arguments) == 0
    assert Path("other.png").is_file() and Path("../here-stages/coarse.png").is_file()


def test_a_photograph_that_does_not_fit_the_format_or_the_memory_does_not_stop_a_folder(
    folders, model_folder, monkeypatch, capsys
):
    save, quantize = Image.Image.save, EMAQuantizer.quantize

    def save_small(image: Image.Image, path: Path, **options: object) -> None:
        if "a.png" in path.name:
            raise ValueError("EXIF data is too long")
        save(image, path, **options)

    def quantize_some(self, latents):
        if latents.shape[-2:] == (5, 7) and not Path("filled/c.tif").exists():
            raise torch.OutOfMemoryError("There is not enough memory")
        return quantize(self, latents)

    monkeypatch.setattr(Image.Image, "save", save_small)
    assert main(folder_arguments(model_folder)) == 1
    assert "photos/a.jpg was not filled: PNG can't hold the result, EXIF data is too long" in capsys.readouterr().err
    monkeypatch.setattr(Image.Image, "save", save)
    monkeypatch.setattr(EMAQuantizer, "quantize", quantize_some)
    Path("filled/c.tif").unlink()
    assert main(folder_arguments(model_folder, "--batch-size", "2")) == 1
    assert "photos/c.tif was not filled: There is not enough memory" in capsys.readouterr().err


def test_photographs_are_not_taken_for_results_of_their_own_folder(folders, model_folder, capsys):
    for name in ("text.png", "wrong.png", "a.jpg"):
        Path("photos", name).unlink()
    before = Path("photos/a.png").read_bytes()
    arguments = ["inpaint", "photos", "--mask", "mask.png", "--out", "photos", "--model", model_folder]
    assert main(arguments) == 1
    assert "photos/a.png was not filled: Its result would replace it" in capsys.readouterr().err
    assert Path("photos/a.png").read_bytes() == before
    main([*arguments, "--overwrite"])
    assert Path("photos/a.png").read_bytes() != before


def test_a_folder_goes_on_where_it_was_broken_off(folders, model_folder, capsys):
    main(folder_arguments(model_folder))
    Path("filled/c.tif").unlink()
    Path("filled/a.png").write_bytes(b"mine")
    capsys.readouterr()
    assert main(folder_arguments(model_folder)) == 1
    assert "wrote 1 file to filled\nleft 3 alone" in capsys.readouterr().out
    assert Path("filled/a.png").read_bytes() == b"mine"
    assert main(folder_arguments(model_folder, "--overwrite")) == 1
    assert pixels_of("filled/a.png").shape == (37, 50, 3)


def test_a_folder_with_stages_results_and_kept_formats(folders, model_folder, capsys):
    for name in ("text.png", "wrong.png", "lonely.png", "a.png"):
        Path("photos", name).unlink()
    assert main(folder_arguments(model_folder, "--stages", "--num-results", "2", "--keep-format")) == 0
    assert "JPEG re-encodes" in capsys.readouterr().out
    assert {"a.jpg", "a-2.jpg", "sub/b.jpg", "sub/b-2.jpg", "c.tif", "c-2.tif"} <= set(contents(Path("filled")))
    with Image.open("filled/a.jpg") as image:
        assert image.format == "JPEG"
    assert np.load("filled-stages/sub/b/global_codes.npy").shape == (5, 7)
    assert pixels_of("filled-stages/c/composite.png").shape == (37, 50, 3)


def test_one_mask_for_a_folder_and_results_inside_it(folders, model_folder):
    for name in ("text.png", "wrong.png", "a.png"):
        Path("photos", name).unlink()
    arguments = ["inpaint", "photos", "--mask", "mask.png", "--out", "photos/filled", "--model", model_folder]
    assert main(arguments) == 0
    assert main([*arguments, "--overwrite"]) == 0  # what was filled is no photograph to be filled
    assert len(list(Path("photos/filled").rglob("*.*"))) == 5


def test_without_a_mask_the_transparent_part_is_filled(workplace, model_folder, refused):
    mask, image = pixels_of("mask.png"), Image.open("photo.png").convert("RGBA")
    assert "no transparency" in refused("inpaint", "photo.png", "--out", "filled.png", "--model", model_folder)
    image.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
    image.save("glass.png")
    assert main(["inpaint", "glass.png", "--out", "filled.png", "--model", model_folder]) == 0
    filled = pixels_of("filled.png")
    assert (filled[..., 3] == 255).all() and np.array_equal(filled[~mask], np.array(image)[~mask])


def test_a_full_disk_does_not_stop_a_folder(folders, model_folder, monkeypatch, capsys):
    save = Image.Image.save

    def save_half(image: Image.Image, path: Path, **options: object) -> None:
        save(image, path, **options)
        if "a.png" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save_half)
    assert main(folder_arguments(model_folder)) == 1
    assert "photos/a.jpg was not filled: [Errno 28] No space left" in capsys.readouterr().err
    assert sorted(contents(Path("filled"))) == sorted(set(FILLED) - {"a.png"})


def test_two_processes_share_a_folder_out(folders, model_folder):
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "hvq_inpaint"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launch, *folder_arguments(model_folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.count("wrote 4 files to filled") == 1  # by one of them, which knows of all
    check_folder("\n".join(line for line in done.stderr.splitlines() if line.startswith("error: ")))

"""`python -m hvq_inpaint inpaint` on a folder: a bad file does not stop the rest, nothing is lost by mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents, make_pixels, pixels_of
from PIL import Image

from hvq_inpaint.__main__ import main
from hvq_inpaint.quantizer import EMAQuantizer

ROOT = Path(__file__).parent.parent


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

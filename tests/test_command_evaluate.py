"""`python -m hvq_inpaint evaluate`: its files, several processes, broken off and gone on with, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import contents, random_alexnet
from safetensors.torch import save_file

from hvq_inpaint.__main__ import main
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation import evaluate as evaluate_module

ROOT = Path(__file__).parent.parent


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

"""Two processes, started by `accelerate launch`, train as one does on the same global batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.data import load_images, validation_samples
from hvq_inpaint.masks import MASK_KINDS
from hvq_inpaint.training import trainer
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.validation import validate

ROOT = Path(__file__).parent.parent

# The second process has memory for one image only.
SCRIPT = """
import os
import sys

import torch

from hvq_inpaint.training.stages import AutoencoderStage
from train_accelerate import main

forward = AutoencoderStage.forward

def short_of_memory(self, image, known):
    if os.environ["RANK"] == "1" and len(image) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return forward(self, image, known)

AutoencoderStage.forward = short_of_memory
sys.exit(main())
"""


def arguments(photographs: Path, output: Path, *more: str) -> list[str]:
    common = "--stage autoencoder --preset tiny --steps 8 --crop-size 32 --mask-size 32 --workers 0 --log-every 1"
    common += " --quantization-warmup 6 --learning-rate 3e-3 --learning-rate-warmup 3 --mixed-precision no"
    common += " --validation-size 32 --validation-images 3 --validation-every 5"
    common += " --checkpoint-every 4 --keep-checkpoints 9 --resume"
    data = ["--dataset", str(photographs), "--output", str(output), "--validation", str(photographs)]
    return [*data, *common.split(), *more]


def rows_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "autoencoder" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, str]:
    """The photographs, a run of two processes with two images each, one of one with four, what the first printed."""
    folder = tmp_path_factory.mktemp("runs")
    photographs = folder / "photographs"
    photographs.mkdir()
    for number in range(8):
        Image.fromarray(make_pixels(48, 56, number)).save(photographs / f"{number}.png")
    script = folder / "train.py"
    script.write_text(SCRIPT)
    # 'accelerate launch --cpu' would start one process without a word.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), *arguments(photographs, folder / "two", "--batch-size", "2")],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trainer.run(parse_options(arguments(photographs, folder / "one", "--batch-size", "4")))
    return photographs, folder / "two", folder / "one", done.stdout


def progress_of(output: Path) -> dict:
    return json.loads((output / "autoencoder" / "checkpoints" / "step-00000004" / "progress.json").read_text())


def test_there_are_two_processes(runs):
    _, two, one, _ = runs
    assert (progress_of(two)["processes"], progress_of(two)["global_batch"]) == (2, 4)
    assert (progress_of(one)["processes"], progress_of(one)["global_batch"]) == (1, 4)
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= set(progress_of(two)["sha256"])
    HVQInpainter.from_pretrained(two / "autoencoder" / "model")


def test_what_is_logged_is_that_of_the_global_batch(runs):
    _, two, one, _ = runs
    pairs = list(zip(rows_of(two), rows_of(one), strict=True))
    assert [row["step"] for row, _ in pairs] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 8]
    # The codebooks start from other samples of the latents after that.
    for of_two, of_one in pairs[:7]:
        for name in set(of_one) - {"images_per_second", "data_seconds"}:
            assert of_two[name] == pytest.approx(of_one[name], rel=2e-3), (of_one["step"], name)


def test_all_samples_are_validated(runs):
    photographs, _, one, _ = runs
    model = HVQInpainter.from_pretrained(one / "autoencoder" / "model")
    samples = validation_samples(load_images(str(photographs)), 3, 32, MASK_KINDS, 0)
    for name, value in validate(model, samples, torch.device("cpu")).items():
        assert rows_of(one)[-1][name] == pytest.approx(value, rel=1e-4), name


def test_the_process_with_the_least_memory_decides_for_all(runs):
    assert runs[3].count("micro-batches of 1 from here on, of the 2 images of a step") == 1


def test_another_number_of_processes_may_go_on_with_the_same_global_batch(runs, capsys):
    photographs, two, _, _ = runs
    (two / "autoencoder" / "model").rename(two / "autoencoder" / "first-model")
    with pytest.raises(
        InvalidInputError, match=r"4 images a step \(2 processes\), and 1 processes .* give --batch-size 4"
    ):
        trainer.run(parse_options(arguments(photographs, two, "--batch-size", "2")))
    before = rows_of(two)
    trainer.run(parse_options(arguments(photographs, two, "--batch-size", "4", "--resume", "step-00000004")))
    assert "Continuing after step 4" in capsys.readouterr().out
    # Steps 5 and 6; the codebooks start from other samples of the latents after that.
    for again, first in zip(rows_of(two)[4:7], before[4:7], strict=True):
        assert again.get("loss", 0) == pytest.approx(first.get("loss", 0), rel=1e-4)

"""Two processes that read a stream with two workers each are killed, and end in the weights of a run never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO
from itertools import count, islice
from pathlib import Path

import datasets
import pytest
import torch
from conftest import make_model, make_pixels
from PIL import Image
from safetensors.torch import load_file

from hvq_inpaint.training.checkpoints import checkpoint_folders, read_progress
from hvq_inpaint.training.log import read_rows

ROOT = Path(__file__).parent.parent
SHARES = (7, 2, 5, 3)  # four steps an epoch, one image left out
STEPS = 14


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, numbers = tmp_path_factory.mktemp("shards"), count()
    for shard, length in enumerate(SHARES):
        rows = []
        for number in islice(numbers, length):
            file = BytesIO()
            Image.fromarray(make_pixels(32, 40, number)).save(file, format="PNG")
            rows.append({"bytes": file.getvalue(), "path": f"{number:02d}.png"})
        datasets.Dataset.from_dict({"image": rows}).to_parquet(folder / f"train-{shard}.parquet")
    return folder


def start(shards: Path, output: Path) -> subprocess.Popen:
    """The launcher, with its processes in a group of their own."""
    if not output.is_dir():
        make_model().save_pretrained(output / "autoencoder" / "model")
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += f" --dynamo_backend no {ROOT / 'train_accelerate.py'}"
    training = f"--stage encoder --preset tiny --steps {STEPS} --batch-size 2 --crop-size 32 --mask-size 32 --workers 2"
    training += " --checkpoint-every 3 --log-every 1 --log-with none --streaming --resume"
    return subprocess.Popen(
        [sys.executable, *launch.split(), "--dataset", str(shards), "--output", str(output), *training.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def finish(shards: Path, output: Path) -> dict[str, torch.Tensor]:
    assert start(shards, output).wait(timeout=240) == 0
    return load_file(output / "encoder" / "model" / "model.safetensors")


def kill_after(shards: Path, output: Path, step: int, seconds: float) -> bool:
    """Start, and kill all processes at once so many seconds after a step was logged; False if the run ended before."""
    process = start(shards, output)
    metrics = output / "encoder" / "metrics.jsonl"
    written = metrics.stat().st_mtime_ns if metrics.exists() else 0
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        rows = read_rows(metrics)
        # Those of the run before, beyond its checkpoint, go first.
        if rows and rows[-1]["step"] >= step and metrics.stat().st_mtime_ns != written:
            break
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return not ended


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_streamed_runs_of_two_processes_end_in_the_same_weights(shards, tmp_path, kills):
    whole = finish(shards, tmp_path / "whole")
    output, chance = tmp_path / "killed", random.Random(kills)
    # In the midst of the second epoch, or anywhere.
    steps = [6] if kills == 1 else [chance.randrange(1, STEPS - 2) for _ in range(kills)]
    assert [kill_after(shards, output, step, chance.uniform(0, 0.1)) for step in sorted(steps)] == [True] * kills
    weights = finish(shards, output)
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.items())
    progress = read_progress(checkpoint_folders(output / "encoder" / "checkpoints")[-1])
    assert (progress.processes, progress.epoch, progress.step) == (2, 3, STEPS)
    rows, of_whole = (read_rows(folder / "encoder" / "metrics.jsonl") for folder in (output, tmp_path / "whole"))
    assert [row["loss"] for row in rows] == [row["loss"] for row in of_whole]

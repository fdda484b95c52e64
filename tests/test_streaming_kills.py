"""Two processes that read a stream with two workers each are killed, and end in the weights of a run never killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
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


def start(shards: Path, output: Path) -> list[subprocess.Popen]:
    """Both processes, as a launcher starts them."""
    if not output.is_dir():
        make_model().save_pretrained(output / "autoencoder" / "model")
    training = f"--stage encoder --preset tiny --steps {STEPS} --batch-size 2 --crop-size 32 --mask-size 32 --workers 2"
    training += " --checkpoint-every 3 --log-every 1 --log-with none --mixed-precision no --streaming --resume"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    there.update(ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    data = ["--dataset", str(shards), "--output", str(output)]
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train_accelerate.py"), *data, *training.split()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **there, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            start_new_session=True,
        )
        for rank in range(2)
    ]


def finish(shards: Path, output: Path) -> dict[str, torch.Tensor]:
    assert [process.wait(timeout=240) for process in start(shards, output)] == [0, 0]
    progress = read_progress(checkpoint_folders(output / "encoder" / "checkpoints")[-1])
    assert (progress.processes, progress.epoch, progress.step) == (2, 3, STEPS)
    return load_file(output / "encoder" / "model" / "model.safetensors")


def kill_after(shards: Path, output: Path, step: int) -> dict[int, float]:
    """Start, and kill all processes at once when a step was logged; the losses that were logged, by step."""
    processes = start(shards, output)
    metrics = output / "encoder" / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    deadline = time.monotonic() + 240
    rows = []
    # What the run before had logged beyond its checkpoint goes first.
    while not rows or rows[-1]["step"] < step or metrics.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline and processes[0].poll() is None
        rows = read_rows(metrics)
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {row["step"]: row["loss"] for row in read_rows(metrics)}


def losses_of(output: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_rows(output / "encoder" / "metrics.jsonl")}


def test_a_killed_run_repeats_the_steps_after_its_checkpoint(shards, tmp_path):
    seen = kill_after(shards, tmp_path / "run", 11)  # in the third epoch, two steps after a checkpoint
    finish(shards, tmp_path / "run")
    losses = losses_of(tmp_path / "run")
    assert list(losses) == list(range(1, STEPS + 1))
    assert len(seen) >= 11 and seen == {step: losses[step] for step in seen}


@pytest.mark.slow
def test_a_run_that_was_killed_ten_times_ends_in_the_same_weights(shards, tmp_path):
    whole = finish(shards, tmp_path / "whole")
    chance = random.Random(0)
    for step in sorted(chance.randrange(1, STEPS - 2) for _ in range(10)):
        kill_after(shards, tmp_path / "killed", step)
    weights = finish(shards, tmp_path / "killed")
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.items())
    assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "whole")

"""Processes that load data end with the run, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import make_pixels
from PIL import Image

ROOT = Path(__file__).parent.parent

# Reads five batches; then the seventh image is one too many for the memory of a worker, or the run is killed.
SCRIPT = """
import multiprocessing
import os
import signal
import sys
from contextlib import closing
from types import SimpleNamespace

import torch

from hvq_inpaint.data import loading
from hvq_inpaint.training.batches import TrainingBatches
from hvq_inpaint.training.checkpoints import Progress
from hvq_inpaint.training.options import TrainingOptions

make_sample = loading.make_sample


def fails(*details):
    if details[-1] == 7:
        raise MemoryError("There is none left.")
    return make_sample(*details)


if sys.argv[2] == "fail":
    loading.make_sample = fails

if __name__ == "__main__":
    values = {"batch_size": 2, "crop_size": 32, "mask_size": 32, "workers": 2, "streaming": sys.argv[3] == "stream"}
    options = TrainingOptions(stage="encoder", dataset=sys.argv[1], output="none", **values)
    one = SimpleNamespace(
        process_index=0, num_processes=1, device=torch.device("cpu"), gather=lambda tensor: tensor, print=print
    )
    with closing(TrainingBatches(one, options).start(Progress())) as batches:
        for _ in range(5 if sys.argv[2] == "kill" else 1000):
            next(batches)
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(24):
        Image.fromarray(make_pixels(32, 40, number)).save(folder / f"{number:02d}.png")
    return folder


def read(photographs: Path, *how: str) -> subprocess.CompletedProcess:
    script = photographs.parent / "read.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script), str(photographs), *how],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=100,  # a run that waits for its workers at the interpreter's end
    )


@pytest.mark.parametrize("source", ["stream", "folder"])
def test_an_error_of_a_worker_ends_the_run(photographs, source):
    done = read(photographs, "fail", source)
    assert done.returncode == 1 and "There is none left." in done.stderr


def test_workers_of_a_stream_end_with_a_run_that_is_killed(photographs):
    done = read(photographs, "kill", "stream")
    assert done.returncode == -signal.SIGKILL, done.stderr
    workers = [int(number) for number in done.stdout.split()]
    deadline = time.monotonic() + 60
    while is_alive := [number for number in workers if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < deadline, is_alive
    assert len(workers) == 2

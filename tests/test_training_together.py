"""What one of two processes meets alone, all are told, and one of them says it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_pixels
from PIL import Image

from hvq_inpaint import InvalidInputError
from hvq_inpaint.training.together import SharedError, problem_of_files, tell_all, together

ROOT = Path(__file__).parent.parent

# The second process alone has a full disk, and then not one image that can be used.
SCRIPT = """
import errno
import json
import sys

from hvq_inpaint.training import batches
from hvq_inpaint.training.together import SharedError, processes, together
from train_accelerate import main

if __name__ == "__main__":
    rank = processes().process_index
    try:
        with together():
            if rank == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
    except SharedError as error:
        with open(f"{sys.argv.pop(1)}-{rank}.json", "w") as file:
            json.dump({"processes": processes().num_processes, "told": str(error)}, file)
    if rank == 1:
        batches.InpaintingDataset.named = lambda self, index, at: (f"row {at}", batches.UnreadableImageError("Torn."))
    sys.exit(main())
"""


def test_two_processes_end_with_one_sentence(tmp_path):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(8):
        Image.fromarray(make_pixels(32, 32, number)).save(photographs / f"{number}.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += f" --dynamo_backend no {tmp_path / 'script.py'} {tmp_path / 'told'}"
    training = f"--stage autoencoder --preset tiny --dataset {photographs} --output {tmp_path / 'run'} --workers 0"
    done = subprocess.run(
        [sys.executable, *launch.split(), *training.split(), "--log-with", "none"],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=120,
    )
    for rank in range(2):
        told = json.loads((tmp_path / f"told-{rank}.json").read_text())
        assert told["processes"] == 2 and told["told"].startswith("The disk is full")
    assert done.returncode == 1
    assert done.stderr.count(f"error: Hardly any of the images of {photographs} can be used: Torn.") == 1
    assert "Connection closed" not in done.stderr  # no one waited for one that had gone


def test_sentences_are_those_of_a_user():
    with pytest.raises(SharedError, match=r"^Lower it\.$"), together():
        raise InvalidInputError("Lower it.")
    with pytest.raises(SharedError, match=r"^/x can't be written: Not a directory\.$"), together():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x")
    with pytest.raises(FileNotFoundError), together():  # a fault of the program keeps its traceback
        raise FileNotFoundError(errno.ENOENT, "No such file", "/x")
    assert problem_of_files(OSError(errno.EIO, "Input/output error")) is None
    tell_all(None)

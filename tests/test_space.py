"""The Space's folder is a program of its own, which starts and fills a photograph."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hub_scenarios as scenarios
import numpy as np
import pytest
from conftest import pixels_of

from hvq_inpaint.__main__ import main


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """The files of a Space with a tiny model, as they would be sent."""
    scenarios.make().save_pretrained(tmp_path / "model")
    command = ["push", "space", "tester/space", "--model", tmp_path / "model", "--save", tmp_path / "space"]
    assert main([str(word) for word in command]) == 0  # a dry run; the tests are offline
    return tmp_path / "space"


@contextmanager
def running(python: Path, space: Path) -> Iterator[str]:
    """The address of `app.py`, run in the Space's folder as the Hub runs it: by its name, without any option."""
    hidden = ("PYTHON", "HF_", "GRADIO_", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment.update(GRADIO_SERVER_NAME="127.0.0.1", GRADIO_ANALYTICS_ENABLED="False", PYTHONUNBUFFERED="1")
    process = subprocess.Popen(
        [python, "app.py"], cwd=space, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = ""
        for line in process.stdout:
            said += line
            if address := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield address[0]
                return
        raise AssertionError(said)
    finally:
        process.terminate()
        process.communicate()


def check(address: str, space: Path, workplace: Path) -> None:
    """A request is answered, and with what the model makes of it, to the program that stands on the Space's card."""
    (workplace / "photo.png").rename("photograph.png")
    (program,) = re.findall(r"```python\n(.*?)```", (space / "README.md").read_text(), flags=re.DOTALL)
    assert 'Client("tester/space")' in program
    found: dict[str, Any] = {}
    exec(compile(program.replace("tester/space", address), "snippet", "exec"), found)
    filled, original = pixels_of(found["results"][0]), pixels_of("photograph.png")
    known = ~pixels_of("mask.png").astype(bool)
    assert np.array_equal(filled[known], original[known]) and not np.array_equal(filled, original)
    assert len(found["stages"]) > 3


def test_it_starts_and_answers(space: Path, workplace: Path) -> None:
    with running(Path(sys.executable), space) as address:
        check(address, space, workplace)


@pytest.mark.slow
def test_it_starts_and_answers_in_a_fresh_environment_of_its_own_requirements(
    space: Path, workplace: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", "requirements.txt"], cwd=space, check=True)
    with running(python, space) as address:
        check(address, space, workplace)

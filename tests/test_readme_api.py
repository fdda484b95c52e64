"""The README's examples of the API, run as they stand against a page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model, pixels_of, serve

README = (Path(__file__).parent.parent / "README.md").read_text()
ADDRESS = "http://127.0.0.1:7860"  # in the README


def example(language: str, needle: str) -> str:
    """The README's only block of code in a language that has `needle` in it."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (block,) = [block for block in blocks if needle in block]
    assert ADDRESS in block
    return block


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(make_model(), tmp_path_factory.mktemp("gradio")) as address:
        yield address.rstrip("/")


@pytest.fixture
def folder(workplace: Path) -> Path:
    """With `photograph.png` and `mask.png`, as the README calls them."""
    (workplace / "photo.png").rename(workplace / "photograph.png")
    return workplace


def check(result: str | Path, folder: Path) -> None:
    expected = make_model().inpaint(folder / "photograph.png", folder / "mask.png")
    assert np.array_equal(pixels_of(result), expected.image)


def test_the_python_example(address: str, folder: Path) -> None:
    code = example("python", "gradio_client").replace(ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    path, seconds = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert float(seconds) > 0
    check(path, folder)


def test_the_curl_example(address: str, folder: Path) -> None:
    code = example("bash", "curl").replace(ADDRESS, address)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    check(folder / "filled.png", folder)

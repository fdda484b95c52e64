"""What the tests share: a tiny model, small pictures, and the assurance that nothing reaches a network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False"
)

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.__main__ import main
from hvq_inpaint.evaluation.evaluate import Evaluation, evaluate
from hvq_inpaint.evaluation.networks import MetricNetworks
from hvq_inpaint.evaluation.options import EvaluationOptions
from hvq_inpaint.masks import random_walk_mask
from hvq_inpaint.metrics import LPIPS

torch.set_num_threads(2)

# Said here, so that the log of `datasets`, which keeps the stderr of the first import, does not get that of a test.
datasets.disable_progress_bars()

# A small evaluation: two mask kinds, two buckets.
OPTIONS = EvaluationOptions(mask_kinds=("random_walk", "box"), buckets=((0.1, 0.2), (0.5, 0.6)), size=32, batch_size=2)


def make_model(seed: int = 0, **changes: object) -> HVQInpainter:
    """A tiny model with random weights everywhere, also where training starts from zero."""
    torch.manual_seed(seed)
    model = HVQInpainter(HVQConfig.from_dict({**HVQConfig.preset("tiny").to_dict(), **changes}))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    model.credibility_map.calibrate(torch.rand(1000) * 3)
    return model.eval()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing but this machine can be reached."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture
def model() -> HVQInpainter:
    return make_model()


def make_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise, (height, width, 3) uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows * generator.uniform(0.02, 0.2) + columns * generator.uniform(0.02, 0.2) + generator.uniform(0, 6))
        for _ in range(3)
    ]
    picture = 127 + 90 * np.stack(waves, axis=-1) + generator.normal(0, 6, (height, width, 3))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


@pytest.fixture
def image_folder(tmp_path):
    """A folder of eight pictures of 80 x 96 pixels, one of them in a sub-folder."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(make_pixels(80, 96, number)).save(
            (folder / "more" if number == 7 else folder) / f"{number}.png"
        )
    return folder


def random_alexnet(seed: int = 0) -> dict[str, torch.Tensor]:
    """The convolutions of torchvision's AlexNet by their names, drawn at random."""
    from torchvision.models import alexnet

    torch.manual_seed(seed)
    return {name: tensor for name, tensor in alexnet().state_dict().items() if name.startswith("features.")}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three generated photographs, one of them wider than the crop of `OPTIONS`."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, width in enumerate((32, 48, 32)):
        Image.fromarray(make_pixels(32, width, number)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def evaluation(files: list[Path]) -> Evaluation:
    """Of the fixture `model` on `files`."""
    return evaluate(make_model(), files, OPTIONS)


@pytest.fixture(scope="session")
def networks() -> MetricNetworks:
    """LPIPS on an AlexNet drawn at random: the arithmetic is what it is with the trained one."""
    return MetricNetworks(lpips=LPIPS(random_alexnet()))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model as files."""
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

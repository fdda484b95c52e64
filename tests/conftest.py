"""What the tests share: a tiny model, small pictures, and the assurance that nothing reaches a network."""

from __future__ import annotations

import os
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from fake_hub import FakeHub
    from hub_client import Client

    from hvq_inpaint.demo import Limits

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


def make_holes(height: int, width: int, *holes: tuple[slice, slice]) -> np.ndarray:
    """A mask, (height, width) bool, True in each of the boxes `holes`, which `np.s_` writes."""
    mask = np.zeros((height, width), dtype=bool)
    for hole in holes:
        mask[hole] = True
    return mask


def in_mode(mode: str, height: int = 20, width: int = 30) -> Image.Image:
    """A picture of any accepted mode, with an alpha of several values where the mode has one."""
    pixels = make_pixels(height, width)
    if mode.startswith("I;16"):
        numbers = (pixels[..., 0].astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
        return Image.frombytes(mode, (width, height), numbers.tobytes())
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(pixels[..., 1] // 64 * 85))
    return image


def write_png_that_claims(path: Path, width: int, height: int) -> None:
    """A PNG of four pixels whose header alone says that it is so large."""
    Image.new("RGB", (2, 2)).save(path)
    png = path.read_bytes()
    header = png[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:29]
    path.write_bytes(png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:])


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


@contextmanager
def serve(
    models: HVQInpainter | dict[str, HVQInpainter], folder: Path, limits: Limits | None = None, **options: Any
) -> Iterator[str]:
    """The address of the page, served by this process on a free port; what it is sent and makes lies in `folder`.

    Args:
        options: further ones of `build`.
    """
    from hvq_inpaint.demo import build, launch  # slow to import

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))  # before `build`: every component looks at it as it is made
        page = build(models, limits, **options)
        try:
            yield launch(page, limits, server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
        finally:
            page.close()


@pytest.fixture(scope="session")
def served_hub() -> Iterator[FakeHub]:
    """The Hub in memory, one for all tests."""
    from fake_hub import serve_hub

    with serve_hub() as hub:
        yield hub


@pytest.fixture
def hub(served_hub: FakeHub) -> Iterator[FakeHub]:
    """The same one, with no fault left from the test before."""
    served_hub.reset()
    yield served_hub
    assert served_hub.unknown == []


@pytest.fixture(scope="session")
def owner(served_hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A process that talks to the Hub in memory, with the token of its user `tester`."""
    from hub_client import hub_client

    with hub_client(served_hub.endpoint, tmp_path_factory.mktemp("home"), served_hub.token) as client:
        yield client


@pytest.fixture(scope="session")
def stranger(served_hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The same without a token, and with a cache of its own."""
    from hub_client import hub_client

    with hub_client(served_hub.endpoint, tmp_path_factory.mktemp("home"), None) as client:
        yield client


@pytest.fixture
def repo_id(request: pytest.FixtureRequest) -> str:
    """The id of a repository that no other test has."""
    words = re.findall(r"[A-Za-z0-9]+", request.node.nodeid.rpartition("/")[2])
    return f"tester/{'-'.join(words)[-90:].lstrip('-')}"


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

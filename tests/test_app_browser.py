"""The page in a real browser. `HVQ_SCREENSHOTS` names a folder to keep the screenshots in."""

from __future__ import annotations

import io
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_model, make_pixels
from PIL import Image

import app
from hvq_inpaint.visualize import STAGE_NAMES

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

# A container often has no user namespaces and little shared memory; a test machine has no graphics card, and the
# browser itself is to reach nothing.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HEIGHT, WIDTH = 240, 320
PATIENCE = 120_000  # milliseconds to wait for anything on the page: a busy machine is slow, not wrong

# True once the editor has shown the same zoom in twenty frames: it then holds still under the brush.
EDITOR_IS_STILL = """() => new Promise((resolve) => {
    const zoom = () => document.querySelector("#editor .zoom-number")?.textContent;
    let last = zoom(), same = 0;
    const step = () => {
        same = zoom() === last ? same + 1 : 0;
        last = zoom();
        if (last && same >= 20) resolve(true); else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        page = app.build(make_model())
        yield app.launch(page, server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
        page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


class Visit:
    """A visit to the page, and what went wrong during it."""

    def __init__(self, browser: Any, address: str, width: int, theme: str) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(PATIENCE)
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "data:", "blob:")) else self.foreign.append(request.url)
            ),
        )
        self.page.on(
            "response",
            lambda response: (
                self.errors.append(f"{response.status} {response.url}") if response.status >= 400 else None
            ),
        )
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}?__theme={theme}", wait_until="domcontentloaded")
        self.page.locator("#editor .pixi-target canvas").wait_for(state="attached")

    def upload(self, path: Path) -> None:
        self.page.locator("#editor input[data-testid=file-upload]").set_input_files(path)
        self.page.locator("#editor button[aria-label=Brush].highlight").wait_for()
        self.page.locator("#editor .pixi-target.visible canvas").wait_for()
        self.page.evaluate(EDITOR_IS_STILL)

    def paint(self, *points: tuple[float, float]) -> None:
        """A stroke through points (x, y) of the canvas, each in [0, 1]."""
        canvas = self.page.locator("#editor .pixi-target canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=6)
        self.page.mouse.up()

    def pictures(self, place: str) -> list[np.ndarray]:
        """The pixels (H, W, 3) of every picture under the element `place`, as they are served."""
        sources = [image.get_attribute("src") for image in self.page.locator(f"{place} img").all()]
        return [
            np.asarray(Image.open(io.BytesIO(self.page.request.get(source).body())).convert("RGB"))
            for source in sources
        ]

    def screenshot(self, path: Path) -> None:
        for image in self.page.locator(
            "#stages img"
        ).all():  # pictures below the fold are loaded when they come into view
            image.scroll_into_view_if_needed()
            image.evaluate("image => image.decode()")
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.screenshot(path=path, full_page=True)


@pytest.fixture
def photograph(tmp_path: Path) -> tuple[Path, np.ndarray]:
    # From 1 up: black is then what the damaged picture shows of the hole, and nothing else.
    pixels = np.maximum(make_pixels(HEIGHT, WIDTH), 1)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (375, "dark")])
def test_paint_and_fill(
    browser: Any, address: str, photograph: tuple[Path, np.ndarray], tmp_path: Path, width: int, theme: str
) -> None:
    path, pixels = photograph
    visit = Visit(browser, address, width, theme)
    assert not visit.page.locator("#stages").is_visible()
    visit.upload(path)
    visit.paint((0.42, 0.45), (0.55, 0.5), (0.58, 0.42))
    visit.page.locator("#fill").click()
    playwright.expect(visit.page.locator("#status")).to_contain_text(f"of {WIDTH} x {HEIGHT} pixels")
    playwright.expect(visit.page.locator("#stages img")).to_have_count(len(STAGE_NAMES))
    playwright.expect(visit.page.locator("#result img")).to_have_count(2)

    before, after = visit.pictures("#result")
    damaged, *_, composite = visit.pictures("#stages")
    hole = (damaged == 0).all(axis=-1)
    rows, columns = np.nonzero(hole)
    assert 0.005 < hole.mean() < 0.3
    assert abs(rows.mean() - HEIGHT / 2) < HEIGHT / 4 and abs(columns.mean() - WIDTH / 2) < WIDTH / 4
    assert np.array_equal(before, pixels)
    assert np.array_equal(after[~hole], pixels[~hole])
    assert not np.array_equal(after[hole], pixels[hole])
    assert np.array_equal(composite, after)
    assert visit.page.locator("#stages .caption-label").all_inner_texts() == [
        app.CAPTIONS[name] for name in STAGE_NAMES
    ]
    assert not visit.page.locator("#others").is_visible()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    folder = Path(os.environ.get("HVQ_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    visit.screenshot(folder / f"app-{width}-{theme}.png")
    visit.page.close()
    assert not visit.foreign and not visit.errors


def test_a_sentence_says_what_is_missing(browser: Any, address: str, photograph: tuple[Path, np.ndarray]) -> None:
    visit = Visit(browser, address, 1440, "light")
    message = visit.page.locator("[data-testid=toast-body]")
    visit.page.locator("#fill").click()
    playwright.expect(message).to_contain_text(
        "There is no photograph yet: upload one and paint over what is to be filled."
    )
    message.get_by_test_id("toast-close").click()
    playwright.expect(message).to_have_count(0)
    visit.upload(photograph[0])
    visit.page.locator("#fill").click()
    playwright.expect(message).to_contain_text(
        "The mask is empty: paint over what is to be filled, or add a mask image."
    )
    visit.page.close()
    assert not visit.foreign and not visit.errors

"""A visit to the page in a real browser, for the tests of the page."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A container often has no user namespaces and little shared memory; a test machine has no graphics card and no camera,
# and the browser itself is to reach nothing.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-gpu-compositing",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE = 60_000  # milliseconds to wait for anything on the page: a busy machine is slow, not wrong

# True once the editor has shown the same zoom in six frames: it then holds still under the brush.
_EDITOR_IS_STILL = """() => new Promise((resolve) => {
    const zoom = () => document.querySelector("#editor .zoom-number")?.textContent;
    let last = zoom(), same = 0;
    const step = () => {
        same = zoom() === last ? same + 1 : 0;
        last = zoom();
        if (last && same >= 6) resolve(true); else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""

# Whether the status has said something else and then, perhaps in the words of the last time, that all is filled.
_WATCH_STATUS = """(status) => {
    let anew = false;
    window.filledAnew = false;
    new MutationObserver(() => {
        const filled = status.innerText.startsWith("Filled ");
        if (filled && anew) window.filledAnew = true;
        anew ||= !filled;
    }).observe(status, { childList: true, characterData: true, subtree: true });
}"""

# What the editor would send, as PNG in base64: its background and its only layer.
_EDITOR_HOLDS = """async () => {
    const text = (blob) => new Promise((resolve) => {
        if (!blob) return resolve(null);
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.split(",")[1]);
        reader.readAsDataURL(blob);
    });
    const blobs = await window.editor.get_blobs();
    return [await text(blobs.background), await text(blobs.layers[0])];
}"""


class Visit:
    """A visit to the page at `address`, in a browser that can reach nothing else, and what went wrong during it."""

    def __init__(self, browser: Any, address: str, width: int = 960, theme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        self.page.set_default_timeout(PATIENCE)
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", self._note_request)
        self.page.on("response", self._note_response)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self._address = address
        self.page.goto(f"{address}?__theme={theme}", wait_until="domcontentloaded")
        self.page.locator("#editor .pixi-target canvas").wait_for(state="attached")
        self.page.locator("#hint[data-watching], #hint [data-watching]").wait_for()

    def _note_message(self, message: Any) -> None:
        # A browser that draws without a graphics card complains of that.
        if message.type == "error" and "WebGL" not in message.text:
            self.errors.append(message.text)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self._address, "data:", "blob:")):
            self.foreign.append(request.url)

    def _note_response(self, response: Any) -> None:
        if response.status >= 400:
            self.errors.append(f"{response.status} {response.url}")

    def leave(self) -> None:
        """Close the page; nothing went wrong on it and no other host was asked for anything."""
        problems = [f"asked for {url}" for url in self.foreign] + self.errors  # what comes of closing is no one's
        self.page.close()
        if problems:
            raise AssertionError("; ".join(problems))

    # ------------------------------------------------------------ in

    def upload(self, path: Path) -> None:
        self.page.locator("#editor input[type=file]").set_input_files(path)
        self.wait_for_photograph()

    def wait_for_photograph(self) -> None:
        self.page.locator("#editor button[aria-label=Brush].highlight").wait_for()
        self.page.locator("#editor .pixi-target.visible canvas").wait_for()
        self.page.evaluate(_EDITOR_IS_STILL)

    def drag(self, *points: tuple[float, float]) -> None:
        """Brush or eraser through points (x, y) of the canvas, each in [0, 1]."""
        canvas = self.page.locator("#editor .pixi-target canvas")
        canvas.hover()  # waits until it stands still
        box = canvas.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=2)  # each step is painted, which takes a software renderer long
        self.page.mouse.up()

    def open(self, *sections: str) -> None:
        """Unfold sections of the page."""
        for section in sections:
            self.page.locator(f"#{section} > button").click()

    # ------------------------------------------------------------ out

    def fill(self) -> None:
        """Press Fill and wait for the result."""
        status = self.page.locator("#status")
        status.evaluate(_WATCH_STATUS)
        self.page.locator("#fill").click()
        try:
            self.page.wait_for_function("window.filledAnew")
        except playwright.TimeoutError:
            said = [status.inner_text(), *self.page.locator("[data-testid=toast-body]").all_inner_texts()]
            raise AssertionError(f"nothing was filled; the page says {said}") from None

    def editor(self) -> tuple[np.ndarray, np.ndarray]:
        """The photograph (H, W, 3) in the editor, and what is painted (H, W) bool."""
        background, layer = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(blob))).convert("RGBA"))
            for blob in self.page.evaluate(_EDITOR_HOLDS)
        )
        return background[..., :3], layer[..., 3] > 0

    def wait_for_editor(self, pixels: np.ndarray, painted: np.ndarray | None = None) -> None:
        """Until the editor shows such a photograph and, if given, such strokes."""

        def shown() -> bool:
            self.page.evaluate(_EDITOR_IS_STILL)
            now = self.editor()
            return np.array_equal(now[0], pixels) and (painted is None or np.array_equal(now[1], painted))

        self.wait_until(shown)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until something that can only be asked for is true."""
        for _ in range(200):
            if true():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("the page does not come to show what was expected")

    def pictures(self, place: str) -> list[np.ndarray]:
        """The pixels (H, W, 3) of every picture under the element `place`, as they are served."""
        sources = [image.get_attribute("src") for image in self.page.locator(f"{place} img").all()]
        # The server may close a connection that was idle just as it is used again: that is no answer, and asked anew.
        answers = [self.page.request.get(source, max_retries=3) for source in sources]
        return [np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB")) for answer in answers]

    def stage(self, name: str) -> np.ndarray:
        """The picture of a stage."""
        (picture,) = self.pictures(f"#stage-{name}")
        return picture

    def hole(self) -> np.ndarray:
        """What the last fill took for missing, (H, W) bool, of a photograph without black."""
        return (self.stage("damaged") == 0).all(axis=-1)

    def download(self, button: str) -> tuple[str, bytes]:
        """The name and the contents of what a button downloads."""
        with self.page.expect_download() as download:
            self.page.locator(button).click()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    def toast(self) -> str:
        """The sentence of the only toast, which is closed."""
        toast = self.page.locator("[data-testid=toast-body]")
        toast.wait_for()
        text = toast.inner_text().splitlines()[-1]
        toast.get_by_test_id("toast-close").click()
        toast.wait_for(state="detached")
        return text

    def screenshot(self, name: str, folder: Path) -> None:
        """The whole page, in `HVQ_SCREENSHOTS` if that names a folder, else in `folder`."""
        folder = Path(os.environ.get("HVQ_SCREENSHOTS", folder))
        folder.mkdir(parents=True, exist_ok=True)
        for image in self.page.locator("#stages img").all():  # those below the fold are loaded when they come into view
            image.scroll_into_view_if_needed()
            image.evaluate("image => image.decode()")
        self.page.evaluate("window.scrollTo(0, 0)")
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)

"""The page in a real browser. `HVQ_SCREENSHOTS` names a folder to keep the screenshots in."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_model, make_pixels, serve
from PIL import Image
from visit import CHROMIUM, CHROMIUM_OPTIONS, PATIENCE, Visit, playwright

from hvq_inpaint.demo import Limits
from hvq_inpaint.demo.layout import EXAMPLES
from hvq_inpaint.demo.stages import STAGES
from hvq_inpaint.masks import make_mask

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

HEIGHT, WIDTH = 240, 320
FIRST, SECOND = [(0.42, 0.45), (0.55, 0.5), (0.58, 0.42)], [(0.45, 0.62), (0.55, 0.64)]


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Iterator[str]:
    with serve(model, tmp_path_factory.mktemp("gradio"), Limits(megapixels=3)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    camera = tmp_path_factory.mktemp("camera") / "grey.y4m"  # what chromium's own test camera shows has 2.8 megapixels
    camera.write_bytes(b"YUV4MPEG2 W320 H240 F20:1 C420jpeg\nFRAME\n" + bytes([128]) * (320 * 240 * 3 // 2))
    options = [*CHROMIUM_OPTIONS, f"--use-file-for-fake-video-capture={camera}"]
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address)
    yield visit
    visit.leave()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.maximum(make_pixels(HEIGHT, WIDTH), 1)  # black is then the hole and nothing else


@pytest.fixture
def photograph(tmp_path: Path, pixels: np.ndarray) -> Path:
    path = tmp_path / "holiday.png"
    Image.fromarray(pixels).save(path)
    return path


def tiny_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (50, 40)).save(file, "PNG")
    return file.getvalue()


def decoded(contents: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(contents)))


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (375, "dark")])
def test_upload_paint_fill_and_download(
    browser: Any, address: str, photograph: Path, pixels: np.ndarray, tmp_path: Path, width: int, theme: str
) -> None:
    visit = Visit(browser, address, width, theme)
    assert visit.page.locator("#stages h3").count() == len(STAGES) and not visit.pictures("#stages")
    visit.upload(photograph)
    visit.drag(*FIRST)
    shown, painted = visit.editor()
    assert np.array_equal(shown, pixels) and 0.005 < painted.mean() < 0.3
    visit.fill()
    assert visit.page.evaluate("document.querySelector('#status').getBoundingClientRect().top < window.innerHeight")

    hole = visit.hole()
    assert np.array_equal(hole, painted)
    before, after = visit.pictures("#result")
    assert np.array_equal(before, pixels)
    assert np.array_equal(after[~hole], pixels[~hole]) and not np.array_equal(after[hole], pixels[hole])
    assert np.array_equal(visit.stage("composite"), after)
    for stage in STAGES[:-1]:
        card = visit.page.locator(f"#stage-{stage.name}")
        assert len(visit.pictures(f"#stage-{stage.name}")) == 1
        assert card.locator("img").get_attribute("alt").startswith(stage.title)
        playwright.expect(card).to_contain_text(stage.sentence)
    for name in ("global_codes", "local_codes"):
        playwright.expect(visit.page.locator(f"#stage-{name}")).to_contain_text("words in use")
    assert not visit.pictures("#stage-error")
    assert f"{hole.mean():.1%} of {WIDTH} x {HEIGHT} pixels" in visit.page.locator("#status").inner_text()
    name, contents = visit.download("#download-png")
    assert name == "holiday-filled.png" and np.array_equal(decoded(contents), after)
    assert not visit.page.locator("#download-own").is_visible() and not visit.page.locator("#results").is_visible()
    assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    visit.screenshot(f"page-{width}-{theme}", tmp_path)
    visit.leave()


def test_brush_eraser_and_undo(visit: Visit, photograph: Path) -> None:
    visit.upload(photograph)
    visit.drag(*FIRST)
    _, first = visit.editor()
    visit.page.locator("#editor button[aria-label=Erase]").click()
    visit.drag(FIRST[0], FIRST[0], FIRST[1])
    _, erased = visit.editor()
    assert erased.any() and erased.sum() < first.sum() and not (erased & ~first).any()
    visit.page.locator("#editor button[aria-label=Undo]").click()
    assert np.array_equal(visit.editor()[1], first)


def test_a_ready_mask_is_added_to_the_strokes(visit: Visit, photograph: Path, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:30, 10:60] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    visit.upload(photograph)
    visit.open("ready-mask")
    visit.page.locator("#mask input[type=file]").set_input_files(tmp_path / "mask.png")
    visit.page.locator("#mask img").wait_for()
    visit.fill()
    assert np.array_equal(visit.hole(), mask)
    visit.drag(*FIRST)
    _, painted = visit.editor()
    visit.fill()
    assert np.array_equal(visit.hole(), mask | painted)
    visit.page.locator("#send-back").click()  # what is filled is not to be filled again
    visit.page.locator("#mask img").wait_for(state="detached")


def test_the_page_damages_the_photograph_and_measures_the_result(
    visit: Visit, photograph: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    visit.upload(photograph)
    visit.open("damage")
    visit.page.get_by_label("Boxes").check()
    visit.page.get_by_label("Seed of the damage").fill("7")
    visit.page.locator("#do-damage").click()
    playwright.expect(visit.page.locator("#compare input")).to_be_checked()
    mask = make_mask("box", HEIGHT, WIDTH, 0.2, 7)
    visit.wait_for_editor(pixels, mask)
    visit.fill()
    assert np.array_equal(visit.hole(), mask)
    after = visit.stage("composite")
    error = np.abs(after[mask].astype(float) - pixels[mask]) / 255
    psnr = -10 * np.log10((error**2).mean())
    playwright.expect(visit.page.locator("#stage-composite")).to_contain_text(f"PSNR {psnr:.2f} dB, SSIM 0.")
    playwright.expect(visit.page.locator("#stage-composite")).to_contain_text(f"L1 {error.mean():.4f}")
    for name in ("damaged", "coarse", "refined"):
        playwright.expect(visit.page.locator(f"#stage-{name}")).to_contain_text("PSNR")
    map_of_error = visit.stage("error")
    assert map_of_error.shape == pixels.shape
    assert len(np.unique(map_of_error[~mask], axis=0)) == 1 and len(np.unique(map_of_error[mask], axis=0)) > 10
    visit.screenshot("damage", tmp_path)

    with visit.page.expect_file_chooser() as chooser:
        visit.page.get_by_role("button", name="Choose a photograph").click()
    chooser.value.set_files(photograph)  # another photograph is not known to be intact, and the result is not of it
    playwright.expect(visit.page.locator("#compare input")).not_to_be_checked()
    playwright.expect(visit.page.locator("#send-back")).to_be_disabled()
    visit.wait_for_editor(pixels, np.zeros_like(mask))
    visit.drag(*FIRST)
    visit.fill()
    assert not visit.pictures("#stage-error")
    assert "PSNR" not in visit.page.locator("#stages").inner_text()


def test_one_of_several_results_is_chosen(visit: Visit, photograph: Path, tmp_path: Path) -> None:
    visit.upload(photograph)
    visit.drag(*FIRST)
    visit.open("options")
    visit.page.get_by_label("number input for Number of results").fill("2")
    visit.fill()
    first, second = visit.pictures("#results")
    assert not np.array_equal(first, second)
    assert np.array_equal(visit.pictures("#result")[1], first)
    visit.screenshot("results", tmp_path)
    visit.page.locator("#results .thumbnail-item").nth(1).click()
    playwright.expect(visit.page.locator("#results .thumbnail-item.selected")).to_have_count(1)
    visit.wait_until(lambda: np.array_equal(visit.pictures("#result")[1], second))
    _, contents = visit.download("#download-png")
    assert np.array_equal(decoded(contents), second)


def test_a_result_goes_back_to_the_editor_and_is_undone(
    visit: Visit, photograph: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    visit.upload(photograph)
    visit.drag(*FIRST)
    visit.fill()
    once, first = visit.stage("composite"), visit.hole()
    visit.page.locator("#send-back").click()
    visit.wait_for_editor(once)
    assert not visit.editor()[1].any()
    playwright.expect(visit.page.locator("#send-back")).to_be_disabled()
    visit.drag(*SECOND)
    visit.fill()
    twice, second = visit.stage("composite"), visit.hole()
    assert not (first & second).all() and second.any()
    assert np.array_equal(twice[~second], once[~second])  # known pixels do not drift
    assert np.array_equal(twice[~first & ~second], pixels[~first & ~second])
    visit.page.locator("#send-back").click()
    visit.wait_for_editor(twice)
    versions = visit.page.locator("#history .thumbnail-item")
    playwright.expect(versions).to_have_count(3)
    playwright.expect(visit.page.locator("#redo")).to_be_disabled()
    visit.page.locator("#undo").click()
    visit.wait_for_editor(once)
    visit.page.locator("#redo").click()
    visit.wait_for_editor(twice)
    visit.screenshot("history", tmp_path)
    versions.nth(0).click()
    visit.wait_for_editor(pixels)
    playwright.expect(visit.page.locator("#undo")).to_be_disabled()
    visit.drag(*FIRST)
    visit.fill()
    visit.page.locator("#send-back").click()
    playwright.expect(versions).to_have_count(2)


def test_the_photographs_own_format_can_be_downloaded(visit: Visit, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "beach at noon.jpg")
    visit.upload(tmp_path / "beach at noon.jpg")
    visit.drag(*FIRST)
    visit.fill()
    playwright.expect(visit.page.locator("#download-own")).to_have_text("Download JPG")
    name, contents = visit.download("#download-own")
    image = Image.open(io.BytesIO(contents))
    assert name == "beach-at-noon-filled.jpg" and image.format == "JPEG" and image.size == (WIDTH, HEIGHT)
    name, contents = visit.download("#download-png")
    assert name == "beach-at-noon-filled.png" and np.array_equal(decoded(contents), visit.stage("composite"))


def test_examples_load_at_once(visit: Visit) -> None:
    for number, example in enumerate(EXAMPLES):
        visit.page.get_by_role("img", name=example.caption).click()
        visit.wait_for_editor(np.asarray(Image.open(example.path)))
        if number == 0:
            visit.drag(*FIRST)
            visit.fill()
            playwright.expect(visit.page.locator("#download-own")).to_have_text("Download JPG")


def test_a_camera_and_the_clipboard_give_photographs_too(visit: Visit, photograph: Path, pixels: np.ndarray) -> None:
    visit.page.evaluate(
        """async (png) => {
            const files = new DataTransfer();
            const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
            files.items.add(new File([bytes], "a.png", { type: "image/png" }));
            const event = new ClipboardEvent("paste", { clipboardData: files, bubbles: true });
            document.body.dispatchEvent(event);
        }""",
        base64.b64encode(photograph.read_bytes()).decode(),
    )
    visit.wait_for_photograph()
    assert np.array_equal(visit.editor()[0], pixels)
    visit.page.evaluate("navigator.clipboard.read = async () => []")
    visit.page.get_by_role("button", name="paste one").click()
    assert visit.toast() == "There is no picture in the clipboard."
    visit.page.evaluate(
        """(png) => {
            const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
            const item = { types: ["image/png"], getType: async (type) => new Blob([bytes], { type }) };
            navigator.clipboard.read = async () => [item];
        }""",
        base64.b64encode(tiny_png()).decode(),
    )
    visit.page.get_by_role("button", name="paste one").click()
    visit.wait_for_editor(np.zeros((40, 50, 3), dtype=np.uint8))
    visit.page.locator("#editor button[aria-label='Clear canvas']").click()
    visit.page.locator("#editor button[aria-label=Webcam]").click()
    visit.page.locator("#editor button", has_text="Click to Access Webcam").click()
    visit.page.wait_for_function("document.querySelector('#editor video').videoWidth")  # till then the button is idle
    visit.page.locator("#editor button[aria-label='capture photo']").click()
    visit.wait_for_photograph()
    assert visit.editor()[0].shape == (240, 320, 3)
    visit.drag(*FIRST)
    visit.fill()
    name, _ = visit.download("#download-png")
    assert name == "camera-filled.png"


def test_what_can_not_be_filled_is_said_in_a_toast(visit: Visit, photograph: Path, tmp_path: Path) -> None:
    visit.page.locator("#fill").click()
    assert visit.toast() == "There is no photograph yet: upload one and paint over what is to be filled."
    visit.upload(photograph)
    visit.page.locator("#fill").click()
    assert visit.toast().startswith("The mask is empty: paint over what is to be filled")
    playwright.expect(visit.page.locator("#status")).to_have_text("Nothing was filled.")
    playwright.expect(visit.page.locator("#cancel")).to_be_disabled()
    Image.fromarray(np.eye(50, dtype=bool)).save(tmp_path / "small.png")
    visit.open("ready-mask")
    visit.page.locator("#mask input[type=file]").set_input_files(tmp_path / "small.png")
    visit.page.locator("#mask img").wait_for()
    visit.page.locator("#fill").click()
    assert visit.toast().startswith("The mask is 50 x 50 pixels and the image 320 x 240")


def test_what_the_editor_can_not_take_is_said_in_a_toast_and_changes_nothing(
    visit: Visit, photograph: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    visit.upload(photograph)
    visit.drag(*FIRST)
    _, painted = visit.editor()
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "words.png").write_text("not a picture")
    Image.new("RGB", (2000, 1600)).save(tmp_path / "poster.png")
    Image.fromarray(make_pixels(200, 200)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60000])
    (tmp_path / "heavy.png").write_bytes((tmp_path / "whole.png").read_bytes() + bytes(14_000_000))
    for name, sentence in (
        ("notes.txt", "notes.txt is not an image that this browser can show: use JPEG, PNG or WebP."),
        ("words.png", "words.png is not an image that this browser can show: use JPEG, PNG or WebP."),
        ("poster.png", "poster.png has 3.2 megapixels, and this page takes up to 3: reduce it"),
        ("heavy.png", "heavy.png has 14 megabytes, and this page takes up to 13: save it smaller."),
    ):
        visit.page.locator("#editor input[type=file]").set_input_files(tmp_path / name)
        assert visit.toast().startswith(sentence)
    visit.page.evaluate(
        """() => {
            const files = new DataTransfer();
            files.items.add(new File(["no picture"], "dropped.txt", { type: "text/plain" }));
            const event = new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
            document.querySelector("#editor canvas").dispatchEvent(event);
        }"""
    )
    assert visit.toast().startswith("dropped.txt is not an image")
    shown, still = visit.editor()
    assert np.array_equal(shown, pixels) and np.array_equal(still, painted)
    visit.fill()


def test_stages_appear_as_they_are_computed_and_a_run_can_be_cancelled(
    visit: Visit, photograph: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine, go_on, refined = model.refine, threading.Event(), []

    def wait(*arguments: Any) -> Any:
        assert go_on.wait(PATIENCE / 1000)
        refined.append(True)
        return refine(*arguments)

    monkeypatch.setattr(model, "refine", wait)
    visit.upload(photograph)
    visit.drag(*FIRST)
    playwright.expect(visit.page.locator("#cancel")).to_be_disabled()
    visit.page.locator("#fill").click()
    playwright.expect(visit.page.locator("#stages img")).to_have_count(5)
    for name in ("damaged", "global_codes", "credibility", "local_codes", "coarse"):
        assert len(visit.pictures(f"#stage-{name}")) == 1
    visit.page.locator("#cancel").click()
    playwright.expect(visit.page.locator("#status")).to_have_text("Cancelled.")
    playwright.expect(visit.page.locator("#cancel")).to_be_disabled()
    go_on.set()
    visit.fill()
    playwright.expect(visit.page.locator("#stages img")).to_have_count(7)


def test_nothing_keeps_anyone_from_using_the_page(browser: Any, address: str, photograph: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    for width, theme in ((1440, "light"), (375, "dark")):
        visit = Visit(browser, address, width, theme)
        visit.open("damage", "ready-mask", "options")
        visit.upload(photograph)
        visit.drag(*FIRST)
        visit.page.get_by_label("number input for Number of results").fill("2")
        visit.page.locator("#fill").focus()
        visit.page.keyboard.press("Enter")
        playwright.expect(visit.page.locator("#status")).to_contain_text("Filled")
        visit.page.locator("#send-back").click()
        playwright.expect(visit.page.locator("#history img")).to_have_count(2)
        visit.page.add_style_tag(content="* { transition: none !important }")  # as it is seen, not on the way there
        playwright.expect(visit.page.locator("#undo")).to_be_enabled()
        found = axe.Axe().run(visit.page).response["violations"]
        serious = [problem for problem in found if problem["impact"] in ("critical", "serious")]
        assert [(node["html"], node["failureSummary"]) for problem in serious for node in problem["nodes"]] == []
        visit.leave()

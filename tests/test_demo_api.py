"""What programs call, through a real server and Gradio's own client."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_mode, make_holes, make_model, make_pixels, pixels_of, serve, write_png_that_claims
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from hvq_inpaint import HVQInpainter
from hvq_inpaint.demo import Limits
from hvq_inpaint.masks import make_mask
from hvq_inpaint.visualize import STAGE_NAMES

HEIGHT, WIDTH = 60, 90


def wait_briefly(job: Any) -> Exception | None:
    """What went wrong with a job at once; None if nothing did."""
    try:
        return job.exception(timeout=5)
    except TimeoutError:
        return None


@pytest.fixture(scope="module")
def served() -> HVQInpainter:
    return make_model()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, served: HVQInpainter) -> Iterator[Client]:
    looked_up: list[object] = []
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        looked_up.append(host)
        return resolve(host, *arguments, **options)

    models = {"first": served, "second": make_model(1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        with serve(models, tmp_path_factory.mktemp("gradio"), Limits(megapixels=0.2, queue=2)) as address:
            client = Client(address, download_files=str(tmp_path_factory.mktemp("downloads")), verbose=False)
            yield client
            client.close()
    assert {str(host) for host in looked_up} <= {"127.0.0.1", "localhost", "None"}


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(HEIGHT, WIDTH)


@pytest.fixture
def mask() -> np.ndarray:
    return make_holes(HEIGHT, WIDTH, np.s_[20:35, 30:60])


def save(image: Image.Image | np.ndarray, path: Path, **options: Any) -> Any:
    """Write a picture and give it as the client sends it."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return handle_file(str(path))


@pytest.fixture
def photograph(tmp_path: Path, pixels: np.ndarray) -> Any:
    return save(pixels, tmp_path / "photograph.png")


@pytest.fixture
def mask_file(tmp_path: Path, mask: np.ndarray) -> Any:
    return save(mask, tmp_path / "mask.png")


def call(client: Client, event: int, data: list[Any]) -> str:
    """What an event answers to whoever sends it any data, as text."""
    address, session = f"{client.src.rstrip('/')}/gradio_api/queue", {"session_hash": "forged"}
    httpx.post(f"{address}/join", json={"fn_index": event, "data": data, **session}).raise_for_status()
    return httpx.get(f"{address}/data", params=session, timeout=60).text


def inpaint(client: Client, image: Any, mask: Any, **options: Any) -> tuple[list[str], list[dict[str, str]], Any]:
    return client.predict(image, mask, api_name="/inpaint", **options)


def test_result_has_the_photographs_size_and_its_known_pixels(
    client: Client, photograph: Any, mask_file: Any, pixels: np.ndarray, mask: np.ndarray
) -> None:
    (path,), stages, report = inpaint(client, photograph, mask_file)
    assert Path(path).name == "photograph-filled.png"
    result = pixels_of(path)
    assert result.shape == pixels.shape
    assert np.array_equal(result[~mask], pixels[~mask])
    assert not np.array_equal(result[mask], pixels[mask])
    by_name = {stage["caption"]: pixels_of(stage["image"]) for stage in stages}
    assert set(by_name) == set(STAGE_NAMES)
    assert np.array_equal(by_name["damaged"], np.where(mask[..., None], 0, pixels))
    assert np.array_equal(by_name["composite"], result)
    assert report["width"] == WIDTH and report["height"] == HEIGHT and report["seconds"] > 0
    assert report["filled"] == pytest.approx(mask.mean(), abs=1e-4)
    assert 1 <= report["global_codes_in_use"] <= 8 * 12 and 1 <= report["local_codes_in_use"] <= 15 * 23
    assert "figures" not in report


def test_several_results_depend_on_the_seed(
    client: Client, photograph: Any, mask_file: Any, pixels: np.ndarray, mask: np.ndarray
) -> None:
    answers = [inpaint(client, photograph, mask_file, num_results=3, seed=seed)[0] for seed in (1, 1, 2)]
    assert [Path(path).name for path in answers[0]] == [f"photograph-filled{end}.png" for end in ("", "-2", "-3")]
    first, again, another = ([pixels_of(path) for path in paths] for paths in answers)
    assert all(np.array_equal(result[~mask], pixels[~mask]) for result in first)
    assert all(map(np.array_equal, first, again))
    assert np.array_equal(first[0], another[0]) and not all(map(np.array_equal, first, another))


def test_the_options_reach_the_model(
    client: Client, photograph: Any, mask_file: Any, pixels: np.ndarray, mask: np.ndarray
) -> None:
    for name, options in (
        ("first", {}),
        ("second", {}),
        ("first", {"dilate": 3}),
        ("first", {"feather": 4}),
        ("first", {"strategy": "crop"}),
    ):
        (path,), _, report = inpaint(client, photograph, mask_file, model=name, **options)
        expected = make_model(0 if name == "first" else 1).inpaint(pixels, mask, **options)
        assert np.array_equal(pixels_of(path), np.asarray(expected.image))
        grown = (np.asarray(expected.stages["damaged"]) == 0).all(axis=2) & (pixels != 0).any(axis=2)
        assert report["filled"] == pytest.approx(grown.mean(), abs=2e-3)


def test_damage_and_measure(client: Client, photograph: Any, pixels: np.ndarray) -> None:
    path = client.predict(photograph, "brush", 0.3, 5, api_name="/damage")
    mask = pixels_of(path)
    assert np.array_equal(mask > 127, make_mask("brush", HEIGHT, WIDTH, 0.3, 5))
    (result,), stages, report = inpaint(client, photograph, handle_file(path), compare=True)
    assert stages[-1]["caption"] == "error"
    difference = np.abs(pixels_of(result).astype(float) - pixels)[mask > 127] / 255
    figures = report["figures"]
    assert set(figures) == {"damaged", "coarse", "refined", "composite"}
    assert figures["composite"]["l1"] == pytest.approx(difference.mean(), abs=1e-4)
    assert figures["composite"]["psnr"] == pytest.approx(-10 * np.log10((difference**2).mean()), abs=1e-3)
    assert -1 < figures["composite"]["ssim"] < 1


def test_figures_that_do_not_exist_are_null(client: Client, tmp_path: Path) -> None:
    black = np.zeros((8, 40, 3), dtype=np.uint8)
    black[:, :8] = 90
    hole = make_holes(8, 40, np.s_[2:5, 20:24])
    _, _, report = inpaint(client, save(black, tmp_path / "black.png"), save(hole, tmp_path / "hole.png"), compare=True)
    assert report["figures"]["damaged"] == {"psnr": None, "ssim": None, "l1": 0.0}


def test_what_is_transparent_is_filled_without_a_mask(client: Client, tmp_path: Path, pixels: np.ndarray) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, dtype=np.uint8)
    alpha[10:20, 10:30] = 0
    (path,), _, report = inpaint(client, save(np.concatenate([pixels, alpha], axis=2), tmp_path / "holes.png"), None)
    result = pixels_of(path)
    known = alpha[..., 0] == 255
    assert (result[..., 3] == 255).all() and np.array_equal(result[known][:, :3], pixels[known])
    assert report["filled"] == pytest.approx((~known).mean(), abs=1e-4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_mode_profile_and_exif_are_kept(
    client: Client, tmp_path: Path, mask_file: Any, mask: np.ndarray, mode: str
) -> None:
    image = in_mode(mode, HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    suffix = ".tif" if mode == "CMYK" else ".png"
    sent = save(image, tmp_path / f"photograph{suffix}", **({} if mode == "CMYK" else {"exif": exif}))
    (path,), *_ = inpaint(client, sent, mask_file)
    with Image.open(path) as result:
        assert result.mode == mode and Path(path).suffix == suffix
        assert np.array_equal(np.asarray(result)[~mask], np.asarray(image)[~mask])
        assert mode == "CMYK" or result.getexif()[0x010E] == "a description"


def test_bad_uploads_are_refused_with_a_sentence_and_the_server_lives(
    client: Client, tmp_path: Path, photograph: Any, mask_file: Any, pixels: np.ndarray, mask: np.ndarray
) -> None:
    whole = (tmp_path / "photograph.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.png").write_text("not a picture")
    write_png_that_claims(tmp_path / "bomb.png", 60000, 60000)
    large = save(make_pixels(400, 501), tmp_path / "large.png")
    for image, message in (
        (handle_file(str(tmp_path / "cut.png")), r"^cut\.png can't be decoded"),
        (handle_file(str(tmp_path / "words.png")), r"^words\.png is not an image"),
        (handle_file(str(tmp_path / "bomb.png")), r"^bomb\.png has more than \d+ pixels"),
        (large, r"^The picture has 0\.3 megapixels, and this page takes up to 0\.2"),
        (None, r"^There is no photograph: send one as image\.$"),
    ):
        with pytest.raises(AppError, match=message):
            inpaint(client, image, mask_file)
    for masks, message in (
        (handle_file(str(tmp_path / "words.png")), r"^words\.png is not an image"),
        (save(mask.T, tmp_path / "turned.png"), r"^The mask is 60 x 90 pixels and the image 90 x 60"),
        (save(np.zeros_like(mask), tmp_path / "empty.png"), r"^The mask is empty"),
        (save(np.ones_like(mask), tmp_path / "full.png"), r"^The mask covers the whole image"),
    ):
        with pytest.raises(AppError, match=message):
            inpaint(client, photograph, masks)
    assert inpaint(client, photograph, mask_file)[0]


@pytest.mark.parametrize(
    "option",
    [
        {"model": "hub/model"},
        {"model": "user/name"},
        {"strategy": "none"},
        {"num_results": 5},
        {"num_results": 0},
        {"dilate": 65},
        {"feather": -1},
        {"seed": -1},
        {"seed": 2**31},
        {"seed": None},
    ],
)
def test_options_outside_what_the_page_offers_are_refused(
    client: Client, photograph: Any, mask_file: Any, option: dict[str, Any]
) -> None:
    with pytest.raises(AppError):
        inpaint(client, photograph, mask_file, **option)


def test_only_these_two_endpoints_are_offered_and_both_are_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert not endpoints["unnamed_endpoints"]
    assert set(endpoints["named_endpoints"]) == {"/inpaint", "/damage"}
    for endpoint in endpoints["named_endpoints"].values():
        names = {parameter["parameter_name"] for parameter in endpoint["parameters"]}
        said = endpoint["description"]
        assert all(f"{name}:" in said for name in names - {"model", "strategy"}), names
        assert "Returns" in said


def test_the_editor_takes_no_blobs_into_memory(client: Client) -> None:
    editor = next(part for part in client.config["components"] if part["type"] == "imageeditor")
    answer = httpx.post(
        f"{client.src.rstrip('/')}/gradio_api/component_server",
        json={"data": {}, "fn_name": "accept_blobs", "component_id": editor["id"], "session_hash": "x"},
    )
    assert answer.status_code == 404


def test_nothing_is_downloaded_for_a_visitor(client: Client, photograph: Any, mask_file: Any) -> None:
    elsewhere = handle_file("http://127.0.0.1:1/photograph.png")
    for image, mask in ((elsewhere, mask_file), (photograph, elsewhere)):
        with pytest.raises(AppError, match=r"^Only files that were uploaded to this page are taken"):
            inpaint(client, image, mask)
    with pytest.raises(AppError, match=r"^Only files that were uploaded to this page are taken"):
        client.predict(elsewhere, "box", 0.2, 0, api_name="/damage")


def test_whatever_a_visitor_names_is_looked_at(client: Client) -> None:
    """Every event is open to programs too, also those of the page alone; Gradio itself would read any file for some."""
    types = {part["id"]: part["type"] for part in client.config["components"]}
    read = {types[number] for event in client.config["dependencies"] for number in event["inputs"]}
    assert read == {"state", "imageeditor", "image", "file", "dropdown", "slider", "number", "checkbox", "radio"}
    (number,) = (part["id"] for part in client.config["components"] if part["props"].get("elem_id") == "mask")
    (event,) = (event for event in client.config["dependencies"] if number in event["inputs"])
    forged = {"path": __file__, "orig_name": "mine.png"}
    given = [forged if number == part else None for part in event["inputs"] if types[part] != "state"]
    said = call(client, event["id"], [*given[:3], "name", *given[3:]])
    assert "Only files that were uploaded to this page are taken" in said and __file__ not in said


def test_a_call_reports_its_progress(client: Client, photograph: Any, mask_file: Any) -> None:
    job = client.submit(photograph, mask_file, num_results=2, api_name="/inpaint")
    job.result()
    *earlier, last = job.outputs()
    assert [output[2] for output in earlier] == [{"done": done, "total": 5} for done in (1, 2, 3)]
    assert all(output[0] is None for output in earlier)
    assert len(last[0]) == 2 and last[2]["seconds"] > 0


def test_a_client_that_dies_does_not_keep_others_from_being_served(
    client: Client, photograph: Any, mask_file: Any, served: HVQInpainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine, begun, go_on = served.refine, threading.Event(), threading.Event()

    def wait(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return refine(*arguments)

    monkeypatch.setattr(served, "refine", wait)
    code = (
        "import sys\nfrom gradio_client import Client, handle_file\n"
        "address, image, mask = sys.argv[1:]\n"
        "Client(address, verbose=False).predict(handle_file(image), handle_file(mask), api_name='/inpaint')"
    )
    command = [sys.executable, "-c", code, client.src, photograph["path"], mask_file["path"]]
    dying = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert begun.wait(60)
    finally:
        dying.kill()
        dying.wait()
    go_on.set()
    assert len(inpaint(client, photograph, mask_file)[0]) == 1


def test_who_finds_the_queue_full_is_told(
    client: Client, photograph: Any, mask_file: Any, served: HVQInpainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine, go_on = served.refine, threading.Event()

    def wait(*arguments: Any) -> Any:
        assert go_on.wait(60)
        return refine(*arguments)

    monkeypatch.setattr(served, "refine", wait)
    jobs = [client.submit(photograph, mask_file, api_name="/inpaint") for _ in range(6)]
    # One runs, two may wait: who comes after them is turned away before anything is done.
    turned_away = [job for job in jobs if isinstance(wait_briefly(job), Exception)]
    go_on.set()
    assert 3 <= len(turned_away) < 6
    assert all("queue is full" in str(job.exception()).lower() for job in turned_away)
    assert all(len(job.result()[0]) == 1 for job in jobs if job not in turned_away)

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_model, make_pixels
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from hvq_inpaint.visualize import STAGE_NAMES

HEIGHT, WIDTH = 60, 90


def free_port() -> int:
    """A port of the loopback interface that the system has just found free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        looked_up: list[object] = []
        resolve = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            looked_up.append(host)
            return resolve(host, *arguments, **options)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        page = app.build(make_model())
        address = app.launch(
            page, server_name="127.0.0.1", server_port=free_port(), prevent_thread_lock=True, quiet=True
        )
        client = Client(address, download_files=str(tmp_path_factory.mktemp("downloads")), verbose=False)
        yield client
        client.close()
        page.close()
    assert {str(host) for host in looked_up} <= {"127.0.0.1", "localhost", "None"}


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(HEIGHT, WIDTH)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:35, 30:60] = True
    return mask


def save(image: Image.Image | np.ndarray, path: Path, **options: Any) -> Any:
    """Write a picture and give it as the client sends it."""
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return handle_file(str(path))


def layer_of(mask: np.ndarray, alpha: int = 255) -> np.ndarray:
    """A layer of the editor, (H, W, 4) uint8, painted where `mask` is True."""
    return np.where(mask[..., None], np.array([255, 61, 129, alpha], dtype=np.uint8), np.uint8(0))


def editor_value(folder: Path, image: Image.Image | np.ndarray, *masks: np.ndarray) -> dict[str, Any]:
    """What a caller of the API sends for the editor: a background and a layer for each mask."""
    layers = [save(layer_of(mask), folder / f"layer{number}.png") for number, mask in enumerate(masks)]
    return {"background": save(image, folder / "photograph.png"), "layers": layers, "composite": None}


def inpaint(client: Client, *inputs: Any) -> tuple[Any, ...]:
    return client.predict(*inputs, api_name="/inpaint")


def test_result_has_the_photographs_size_and_its_known_pixels(
    client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray
) -> None:
    (before, after), stages, others, status = inpaint(client, editor_value(tmp_path, pixels, mask))
    assert np.array_equal(Image.open(before), pixels)
    with Image.open(after) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        result = np.asarray(image)
    assert result.shape == pixels.shape
    assert np.array_equal(result[~mask], pixels[~mask])
    assert not np.array_equal(result[mask], pixels[mask])
    assert others == []
    assert f"{mask.mean():.1%} of {WIDTH} x {HEIGHT} pixels" in status and "seconds" in status
    assert [stage["caption"] for stage in stages] == [app.CAPTIONS[name] for name in STAGE_NAMES]
    damaged, *_, composite = (np.asarray(Image.open(stage["image"])) for stage in stages)
    assert np.array_equal(damaged, np.where(mask[..., None], 0, pixels))
    assert np.array_equal(composite, result)


def test_layers_and_mask_image_add_up(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    stroke, uploaded = np.roll(mask, 20, axis=0), np.roll(mask, -25, axis=1)
    mask_image = save(np.where(uploaded, np.uint8(255), np.uint8(0)), tmp_path / "mask.png")
    (_, after), *_ = inpaint(client, editor_value(tmp_path, pixels, mask, stroke), mask_image)
    union = mask | stroke | uploaded
    result = np.asarray(Image.open(after))
    assert np.array_equal((result != pixels).any(axis=-1) | union, union)
    for part in (mask, stroke & ~mask, uploaded & ~mask):
        assert (result != pixels)[part].any()


def test_mask_image_without_strokes(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    mask_image = save(np.where(mask, np.uint8(255), np.uint8(0)), tmp_path / "mask.png")
    (_, after), *_ = inpaint(client, editor_value(tmp_path, pixels), mask_image)
    assert np.array_equal(np.asarray(Image.open(after))[~mask], pixels[~mask])


def test_several_results_depend_on_the_seed(
    client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray
) -> None:
    value = editor_value(tmp_path, pixels, mask)
    answers = [inpaint(client, value, None, 3, seed) for seed in (1, 1, 2)]
    first, again, another = ([np.asarray(Image.open(other["image"])) for other in answer[2]] for answer in answers)
    assert len(first) == 2 and all(np.array_equal(result[~mask], pixels[~mask]) for result in first)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, another))


def test_exif_orientation_is_applied(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    value = editor_value(tmp_path, pixels, mask)
    value["background"] = save(np.rot90(pixels), tmp_path / "turned.png", exif=exif)
    (before, after), *_ = inpaint(client, value)
    assert np.array_equal(Image.open(before), pixels)
    assert np.array_equal(np.asarray(Image.open(after))[~mask], pixels[~mask])


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_mode_is_kept(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    (_, after), *_ = inpaint(client, editor_value(tmp_path, image, mask))
    with Image.open(after) as result:
        assert result.mode == mode
        assert np.array_equal(np.asarray(result)[~mask], np.asarray(image)[~mask])


def test_nothing_painted_is_refused(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    message = r"^The mask is empty: paint over what is to be filled, or add a mask image\.$"
    for masks in ([], [np.zeros_like(mask)]):
        with pytest.raises(AppError, match=message):
            inpaint(client, editor_value(tmp_path, pixels, *masks))


def test_no_photograph_is_refused(client: Client) -> None:
    for value in (None, {"background": None, "layers": [], "composite": None}):
        with pytest.raises(AppError, match=r"^There is no photograph yet"):
            inpaint(client, value)


def test_masks_that_do_not_fit_are_refused(
    client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray
) -> None:
    message = r"^The mask is 60 x 90 pixels and the image 90 x 60: both must have the same width and height\.$"
    with pytest.raises(AppError, match=message):
        inpaint(client, editor_value(tmp_path, pixels, mask.T))
    with pytest.raises(AppError, match=r"^The mask covers the whole image"):
        inpaint(client, editor_value(tmp_path, pixels, np.ones_like(mask)))
    with pytest.raises(AppError, match=r"^The mask covers the whole image"):
        inpaint(client, editor_value(tmp_path, pixels, mask, ~mask))


def test_unreadable_files_are_refused_by_their_names(
    client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray
) -> None:
    value = editor_value(tmp_path, pixels, mask)
    whole = (tmp_path / "photograph.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(AppError, match=r"^cut\.png can't be decoded"):
        inpaint(client, {**value, "background": handle_file(str(tmp_path / "cut.png"))})
    with pytest.raises(AppError, match=r"^words\.png is not an image"):
        inpaint(client, {**value, "layers": [handle_file(str(tmp_path / "words.png"))]})
    with pytest.raises(AppError, match=r"^words\.png is not an image"):
        inpaint(client, value, handle_file(str(tmp_path / "words.png")))
    with pytest.raises(AppError, match=r"^Images of mode CMYK"):
        inpaint(client, {**value, "background": save(Image.fromarray(pixels).convert("CMYK"), tmp_path / "cmyk.jpg")})


def test_no_seed_is_refused(client: Client, tmp_path: Path, pixels: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(AppError, match=r"^There is no seed"):
        inpaint(client, editor_value(tmp_path, pixels, mask), None, 1, None)


def test_faint_strokes_count(pixels: np.ndarray, mask: np.ndarray) -> None:
    background = Image.fromarray(pixels).convert("RGBA")
    photograph, marks = app.marked(
        {"background": background, "layers": [Image.fromarray(layer_of(mask, alpha=1))], "composite": None}, None
    )
    assert np.array_equal(photograph, pixels) and np.array_equal(marks, mask)


def test_every_stage_has_a_caption() -> None:
    assert tuple(app.CAPTIONS) == STAGE_NAMES


def test_large_stage_pictures_are_reduced(client: Client, tmp_path: Path) -> None:
    pixels = make_pixels(40, 1500)
    mask = np.zeros((40, 1500), dtype=bool)
    mask[10:20, 700:720] = True
    (_, after), stages, *_ = inpaint(client, editor_value(tmp_path, pixels, mask))
    assert Image.open(after).size == (1500, 40)
    assert max(max(Image.open(stage["image"]).size) for stage in stages) == app.STAGE_LONGEST_SIDE


def test_model_that_can_not_be_loaded_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, empty, broken = tmp_path / "missing", tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "config.json").write_text("{")
    for folder in (missing, empty, broken):
        assert app.main(["--model", str(folder)]) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1 and str(folder) in message


def test_port_in_use_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model().save_pretrained(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(["--model", str(tmp_path), "--host", "127.0.0.1", "--port", str(port)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and str(port) in message and message.count("\n") == 1


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        app.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--host", "--port", "--model", "--share"))


def test_defaults_of_the_command_line() -> None:
    options = app.parse_arguments([])
    assert options.model is None and options.device == "auto"
    assert options.host is None and options.port is None and not options.share

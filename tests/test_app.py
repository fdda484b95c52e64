"""The command line of the page, and the same file on a Space."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from conftest import make_model, pixels_of, serve
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import app

ROOT = Path(__file__).parent.parent


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


def test_port_in_use_is_an_error_of_one_line(model_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(["--model", model_folder, "--host", "127.0.0.1", "--port", str(port)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and str(port) in message and message.count("\n") == 1


@pytest.mark.parametrize("limit", ["megapixels", "seconds", "queue"])
def test_a_limit_of_nothing_is_an_error_of_one_line(
    model_folder: str, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    assert app.main(["--model", model_folder, f"--{limit}", "0"]) == 1
    assert capsys.readouterr().err == f"error: The limit {limit} must be a finite number above 0, not 0.\n"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        app.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    options = ("--host", "--port", "--model", "--share", "--device", "--megapixels", "--seconds", "--queue")
    assert all(option in text for option in options)


def test_options_reach_the_page(model_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(app, "build", lambda models, limits, on_gpu: given.update(models=models, limits=limits))
    monkeypatch.setattr(app, "launch", lambda page, limits, **options: given.update(options))
    arguments = ["--model", model_folder, "--host", "0.0.0.0", "--port", "7000", "--share"]
    assert app.main([*arguments, "--megapixels", "2", "--seconds", "9", "--queue", "3"]) == 0
    assert list(given["models"]) == [Path(model_folder).name]
    assert (given["limits"].megapixels, given["limits"].seconds, given["limits"].queue) == (2, 9, 3)
    assert (given["server_name"], given["server_port"], given["share"]) == ("0.0.0.0", 7000, True)


def test_defaults_of_the_command_line() -> None:
    options = app.parse_arguments([])
    assert options.model is None and options.device == "auto"
    assert options.host is None and options.port is None and not options.share


def test_several_models_are_called_by_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/one", "b/two", "c/one"):
        make_model().save_pretrained(tmp_path / name)
    names = [str(tmp_path / name) for name in ("a/one", "b/two", "c/one")]
    assert list(app.load_models(names[:2], "cpu")) == ["one", "two"]
    assert app.main(["--model", names[0], "--model", names[2]]) == 1
    assert capsys.readouterr().err == "error: Two models would be called one on the page: rename a folder.\n"


def test_the_bundled_model_is_the_default() -> None:
    assert list(app.load_models(None, "cpu")) == [app.BUNDLED]


# ---------------------------------------------------------------- Spaces


def on_another_machine(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """As ZeroGPU does: what goes in and what comes out is pickled on its way, and an error loses its sentence."""

    def run(*arguments: Any) -> Iterator[Any]:
        try:
            for answer in function(*pickle.loads(pickle.dumps(arguments))):
                yield pickle.loads(pickle.dumps(answer))
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(type(error).__name__) from None

    return run


def test_a_fill_can_run_on_another_machine(workplace: Path, tmp_path: Path) -> None:
    with serve(make_model(), tmp_path / "gradio", on_gpu=on_another_machine) as address:
        client = Client(address, download_files=str(tmp_path / "downloads"), verbose=False)
        (path,), stages, report = client.predict(
            *map(handle_file, ("photo.png", "mask.png")), compare=True, api_name="/inpaint"
        )
        with pytest.raises(AppError, match=r"^The mask covers the whole image once it has grown"):
            client.predict(*map(handle_file, ("photo.png", "mask.png")), dilate=64, api_name="/inpaint")
        client.close()
    expected = make_model().inpaint("photo.png", "mask.png")
    assert np.array_equal(pixels_of(path), expected.image)
    assert len(stages) == 8 and report["figures"]["composite"]["psnr"] > 0


def test_on_zerogpu_the_fill_is_what_gets_the_gpu(tmp_path: Path, model_folder: str) -> None:
    """`spaces` has to be imported before torch, and its decorator to be given the function that runs a model."""
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\n"
        "def GPU(duration):\n"
        "    def decorate(function):\n"
        "        print('on the GPU:', function.__qualname__, duration)\n"
        "        return function\n"
        "    return decorate\n"
    )
    code = (
        "import app\napp.launch = lambda *arguments, **options: None\n"
        f"raise SystemExit(app.main(['--model', {model_folder!r}]))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "on the GPU: build.<locals>.run 30\n"

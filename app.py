"""The demonstration: paint on a photograph, see it filled and every intermediate of the pipeline.

`python app.py` starts it with the bundled model, without a network. The same file is the Space, on a processor, a GPU
or ZeroGPU.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

try:
    import spaces  # ZeroGPU; it has to come before torch
except ImportError:
    spaces = None

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.commands import load_model
from hvq_inpaint.demo import Limits, build, launch, visitors_folder

BUNDLED = "bundled"

# For which a fill reserves ZeroGPU's GPU at most. It takes far less, and a visitor is only let in who has as much left.
_GPU_SECONDS = 30


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `sys.argv` if `arguments` is None."""
    defaults = {field.name: field.default for field in fields(Limits)}
    parser = argparse.ArgumentParser(description="A page in the browser to fill in the painted part of a photograph.")
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="a folder with config.json and model.safetensors, or user/name on the Hub; several of them, each with its "
        "own --model, can be chosen from on the page, and no others (default: the bundled model)",
    )
    parser.add_argument(
        "--host", help="address to listen on; 0.0.0.0 for all (default: GRADIO_SERVER_NAME, or 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: GRADIO_SERVER_PORT, or the first free one from 7860)"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps; auto is a GPU if there is one (default: auto)"
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="also give the page a public address for a week, by a tunnel through gradio.live",
    )
    limits = parser.add_argument_group("limits for one visitor")
    limits.add_argument(
        "--megapixels",
        type=float,
        default=defaults["megapixels"],
        help="the largest photograph (default: %(default)s)",
    )
    limits.add_argument(
        "--seconds", type=float, default=defaults["seconds"], help="the longest fill (default: %(default)s)"
    )
    limits.add_argument(
        "--queue",
        type=int,
        default=defaults["queue"],
        help="requests that may wait for their turn, of all visitors together (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def load_models(names: Sequence[str] | None, device: str) -> dict[str, HVQInpainter]:
    """The models of a page by what visitors see of their names: the last part of a path, the whole of a Hub id.

    Raises:
        InvalidInputError: there is no such model or device, or two would have one name.
    """
    if names is None:
        return {BUNDLED: load_model(None, device)}
    models: dict[str, HVQInpainter] = {}
    for name in names:
        shown = Path(name).resolve().name if Path(name).is_dir() else name
        if shown in models:
            raise InvalidInputError(f"Two models would be called {shown} on the page: rename a folder.")
        models[shown] = load_model(name, device)
    return models


def _on_zerogpu(limits: Limits) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator of what needs the GPU; it does nothing elsewhere than on ZeroGPU."""
    return spaces.GPU(duration=round(min(_GPU_SECONDS, max(1, limits.seconds))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the models and serve the page until it is interrupted; the exit status."""
    options = parse_arguments(arguments)
    try:
        limits = Limits(options.megapixels, options.seconds, options.queue)
        models = load_models(options.model, options.device)
        with visitors_folder():
            page = build(models, limits, on_gpu=_on_zerogpu(limits) if spaces else None)
            launch(page, limits, server_name=options.host, server_port=options.port, share=options.share)
    except (InvalidInputError, OSError) as error:  # an OSError: the address or the port can't be had
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # As Ctrl + C: the server is closed and the files of visitors are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())

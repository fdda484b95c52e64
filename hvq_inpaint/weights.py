"""Weights as files: safetensors, one or several shards, read strictly and never from pickles."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch.overrides import TorchFunctionMode

from .errors import InvalidInputError

SINGLE_FILE = constants.SAFETENSORS_SINGLE_FILE  # model.safetensors
INDEX_FILE = constants.SAFETENSORS_INDEX_FILE  # model.safetensors.index.json, which names the shards
MAX_SHARD_SIZE = "5GB"

# Of all files that ever belong to saved weights.
WEIGHT_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_SHARD = re.compile(r"[\w.-]+\.safetensors", flags=re.ASCII)
# Files that may hold pickles, which run any program when they are opened.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

_LARGEST_JSON = 16 * 2**20  # bytes: far beyond any configuration or index
_KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_json(path: Path, name: str) -> dict:
    """The object in a JSON file; `name` is whose it is, for the message.

    Raises:
        InvalidInputError: the file is too large to be ours, no JSON, or holds something else than an object.
    """
    if path.stat().st_size > _LARGEST_JSON:
        raise InvalidInputError(f"The {path.name} of {name} is far too large to be that of a model.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no text, or a number of too many digits
        raise InvalidInputError(f"The {path.name} of {name} can't be used: {error}.") from None
    if not isinstance(values, dict):
        raise InvalidInputError(f"The {path.name} of {name} can't be used: it holds no names and values.")
    return values


def shard_names(index: Path, name: str) -> list[str]:
    """The files that an index says the weights of `name` lie in, beside the index.

    Raises:
        InvalidInputError: it is no index, or names something else than a safetensors file in the same folder.
    """
    weight_map = read_json(index, name).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidInputError(f"The {index.name} of {name} can't be used: it has no weight_map.")
    names = sorted({str(file) for file in weight_map.values()})
    for file in names:
        if not _SHARD.fullmatch(file):
            raise InvalidInputError(
                f"The {index.name} of {name} names {file[:80]!r}; weights are read from safetensors files beside it "
                "only."
            )
    return names


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights in its folder.

    Raises:
        InvalidInputError: there are none, some are missing, or there are pickles among the files.
    """
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    found = single.is_file() or index.is_file()
    if pickles:
        advice = "move it elsewhere" if found else f"ask for the weights as {SINGLE_FILE}"
        raise InvalidInputError(
            f"{folder} holds {pickles[0]}, which may be a pickle, and a pickle can run any program: {advice}; weights "
            "are read from safetensors only."
        )
    if single.is_file():
        return [single]
    if not index.is_file():
        raise InvalidInputError(f"{folder} has no {SINGLE_FILE}; weights are read from safetensors only.")
    files = [folder / name for name in shard_names(index, str(folder))]
    for file in files:
        if not file.is_file():
            raise InvalidInputError(f"{folder} lacks {file.name}, which its {INDEX_FILE} names: fetch the whole of it.")
    return files


def save_weights(
    state: Mapping[str, torch.Tensor],
    folder: Path,
    metadata: Mapping[str, str],
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> None:
    """Write a state as `model.safetensors`, or as shards and their index if it is larger than `max_shard_size`.

    Args:
        folder: one that nobody reads yet: what it holds is half written until this returns.
        metadata: what else stands in the header of the file, or in the index.
    """
    # A part that was compiled has one more level in the names of its tensors, which is no part of the network.
    tensors = {name.replace("_orig_mod.", ""): _alone(tensor.detach()) for name, tensor in state.items()}
    save_torch_state_dict(tensors, folder, max_shard_size=max_shard_size, metadata=dict(metadata))
    for path in folder.glob("*.safetensors"):
        _sort_metadata(path)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in a memory of its own: one that shares it with others can't be saved by itself."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _sort_metadata(path: Path) -> None:
    """Give the metadata in a file's header an order: safetensors draws one, so that equal files would differ."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "as compact as safetensors writes it"
        file.seek(8)
        file.write(text.ljust(length))


class _NoInitialisation(TorchFunctionMode):
    """A block in which nothing changes the values of tensors on the device meta, which have none.

    PyTorch would import its compiler for that, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        if in_place and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return args[0]
        if func is torch.randn:
            func = torch.empty
        return func(*args, **(kwargs or {}))


def shapes_of(make: Callable[[], torch.nn.Module]) -> dict[str, torch.Tensor]:
    """The state of the network that `make` gives, without values: no memory is taken, whatever its size."""
    with torch.device("meta"), _NoInitialisation():
        return make().state_dict()


def check_header(paths: list[Path], expected: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, Path]:
    """Where each of the expected tensors lies, from the headers of the files alone: nothing else is read.

    Args:
        expected: tensors by name, as those of a model on the device `meta`.
        prefix: of the names in the files, before those of `expected`; what has other ones is not looked at.

    Raises:
        InvalidInputError: a file is not safetensors, or a tensor is missing, extra, there twice, of another shape, or
            of no floating-point numbers.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    for header in _headers(paths):
        shown = header.name if len(header.name) < 100 and header.name.isprintable() else f"{header.name[:40]!r}..."
        if not header.name.startswith(prefix):
            continue
        name = header.name.removeprefix(prefix)
        if name in found:
            problems.append(f"{shown} is there twice")
        elif name not in expected:
            problems.append(f"{shown} is not part of the model")
        elif header.shape != tuple(expected[name].shape):
            problems.append(f"{header.name} is {header.shape} and must be {tuple(expected[name].shape)}")
        elif header.kind not in _KINDS:
            problems.append(f"{header.name} is of type {header.kind} and must be of {', '.join(_KINDS)}")
        found[name] = header.path
    problems = [f"{prefix}{name} is missing" for name in expected if name not in found] + problems
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        where = paths[0] if len(paths) == 1 else paths[0].parent
        raise InvalidInputError(f"{where} does not fit the configuration: {'; '.join(problems[:3])}{more}.")
    return found


def load_weights(model: torch.nn.Module, found: Mapping[str, Path], prefix: str = "") -> None:
    """Copy what `check_header` found into `model`, in the number formats that the model has."""
    state: dict[str, torch.Tensor] = {}
    for path in sorted(set(found.values())):
        with _opened(path) as file:
            for name in (name for name, where in found.items() if where == path):
                state[name] = file.get_tensor(f"{prefix}{name}")
    model.load_state_dict(state)


@dataclass(frozen=True)
class _Header:
    """What the header of a safetensors file says of a tensor."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str


def _headers(paths: list[Path]) -> Iterator[_Header]:
    for path in paths:
        with _opened(path) as file:
            for name in sorted(file.keys()):
                piece = file.get_slice(name)
                yield _Header(path, name, tuple(piece.get_shape()), piece.get_dtype())


def _opened(path: Path) -> safe_open:
    """A file whose header was found to fit its size; its tensors are mapped, not read."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise InvalidInputError(f"{path} is not a readable safetensors file: {str(error).rstrip('.')}.") from None

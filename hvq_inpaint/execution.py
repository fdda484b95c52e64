"""How the networks are run: in which number format, and in which order in memory (`benchmarks/speed.py`)."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from .errors import InvalidInputError

PRECISIONS = ("auto", "float32", "bfloat16")

# Of weights in half the memory. The buffers of such a model, codebooks and statistics, are float32 all the same.
NARROW_DTYPES = (torch.bfloat16, torch.float16)
# What applies weights; the first argument is what they are applied to.
_LAYERS = (F.conv2d, F.conv_transpose2d, F.linear, F.layer_norm)


def device_name(device: torch.device) -> str:
    """What the device is called by its maker, as far as PyTorch knows."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return platform.machine() if device.type == "cpu" else device.type


def find_device(name: str) -> torch.device:
    """`name` as a device that this machine has; `auto`: the first GPU if there is one, else the processor.

    Raises:
        InvalidInputError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not number.isdecimal()):
        raise InvalidInputError(f"There is no device {name!r}; choose auto, cpu, cuda, cuda:1 or mps.")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) >= counts[kind]:
        raise InvalidInputError(
            f"This machine has {counts[kind]} {kind} device{'' if counts[kind] == 1 else 's'}, so there is no {name}."
        )
    return torch.device(name)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32.

    On GPUs of NVIDIA and AMD that is said by PyTorch. On processors it takes instructions of their own: without them
    bfloat16 is slower. Apple's GPUs stay at float32.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # of several, the one that is asked of
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # older versions of PyTorch can't tell
        abilities = torch.cpu.get_capabilities()
        return torch.bfloat16 if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else torch.float32
    return torch.float32


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The number format of a model's parameters."""
    parameter = next(model.parameters(), None)  # a replica of `DataParallel` has none
    return torch.float32 if parameter is None else parameter.dtype


def check_weights(model: nn.Module) -> None:
    """Refuse a model whose numbers are in formats that the networks can't run with.

    Raises:
        InvalidInputError: a codebook or statistic is not in float32, or the weights are in none of the formats that
            weights may have.
    """
    formats = {buffer.dtype for buffer in model.buffers() if buffer.is_floating_point()} - {torch.float32}
    if formats or weights_dtype(model) not in (torch.float32, *NARROW_DTYPES):
        raise InvalidInputError(
            "Codebooks and statistics must be in float32, and only the weights may be in float16 or bfloat16: load the "
            "model so (dtype=torch.bfloat16) instead of converting all of it."
        )


class _FittingWeights(TorchFunctionMode):
    """A block in which narrow weights take the format of what they are applied to, those of norms float32.

    That of one layer at a time: nothing is kept, and the model is not changed.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function not in _LAYERS:
            return function(*args, **kwargs)
        features, *weights = args
        dtype = torch.float32 if function is F.layer_norm else features.dtype

        def fitting(value: Any) -> Any:
            is_narrow = isinstance(value, torch.Tensor) and value.dtype in NARROW_DTYPES
            return value.to(dtype) if is_narrow else value

        return function(features, *map(fitting, weights), **{name: fitting(value) for name, value in kwargs.items()})


def with_fitting_weights(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The `forward` of a network, so that its weights may be of `NARROW_DTYPES`, whatever it computes in.

    That is said by its inputs and by autocast, as it is with float32 weights, for which nothing is changed. Computing
    in the weights' own format would be some 25 times slower on processors that have no instructions for it.
    """

    @wraps(forward)
    def run(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if weights_dtype(network) not in NARROW_DTYPES:
            return forward(network, *args, **kwargs)
        with _FittingWeights():
            return forward(network, *args, **kwargs)

    return run


def running_dtype(precision: str, device: torch.device, weights: torch.dtype = torch.float32) -> torch.dtype:
    """In what the networks run, by a precision of `PRECISIONS`.

    Args:
        weights: in what `weights_dtype` says that they are held. With `auto`, GPUs of NVIDIA and AMD run those in
            float16 so: it is as fast as bfloat16 there and finer, and older ones have no bfloat16.
    """
    if precision != "auto":
        return getattr(torch, precision)
    return torch.float16 if weights == torch.float16 and device.type == "cuda" else fast_dtype(device)


@contextmanager
def running_in(precision: str, device: torch.device, weights: torch.dtype = torch.float32) -> Iterator[None]:
    """A block in which the networks run as `running_dtype` says, and for inference only.

    What needs float32 keeps it. An autocast around the block has no influence.
    """
    dtype = running_dtype(precision, device, weights)
    is_narrow = dtype != torch.float32
    # Not entered with float32, which on some devices is no type to cast to.
    cast = torch.autocast(device.type, dtype) if is_narrow else torch.autocast(device.type, enabled=False)
    with torch.inference_mode(), cast:
        yield


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) with the channels of a pixel side by side in memory.

    Convolutions of processors are faster so, and those of NVIDIA's and AMD's GPUs by what their makers say. Their
    results keep the order: it is enough to ask for it where a network begins. The weights need not have it.
    """
    return images.contiguous(memory_format=torch.channels_last) if images.device.type in ("cpu", "cuda") else images

"""How the networks are run: in which number format, and in which order in memory (`benchmarks/speed.py`)."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("auto", "float32", "bfloat16")


def device_name(device: torch.device) -> str:
    """What the device is called by its maker, as far as PyTorch knows."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return platform.machine() if device.type == "cpu" else device.type


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


@contextmanager
def running_in(precision: str, device: torch.device) -> Iterator[None]:
    """A block in which the networks run in a precision of `PRECISIONS`, and for inference only.

    What needs float32 keeps it. An autocast around the block has no influence.
    """
    dtype = fast_dtype(device) if precision == "auto" else getattr(torch, precision)
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

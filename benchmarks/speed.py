"""Where the time of one pass through the networks goes, and how near it is to what the machine can do:
`python benchmarks/speed.py`.

The floor is the number of multiplications and additions of convolutions, linear layers and attention over the rate at
which the machine multiplies large matrices of the same number format, measured in the same run. Every round times
every form once, so that a noisy machine is noisy for all of them; all figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hvq_inpaint import HVQInpainter
from hvq_inpaint.execution import device_name, fast_dtype, find_device, running_in

STAGES = ("encoder", "codes", "decoder", "credibility", "blending", "refiner")
FORMS = [(dtype, order) for dtype in ("float32", "bfloat16") for order in ("channels first", "channels last")]


def stages(model: HVQInpainter, damaged: torch.Tensor, known: torch.Tensor) -> Iterator[None]:
    """`forward`, stage by stage."""
    mid, latents = model.encoder_b1(torch.where(known > 0.5, damaged, 0), known)
    yield
    quantized, _ = model.vqvae.global_quantizer.quantize(latents)
    yield
    _, _, coarse = model.vqvae.decode(quantized, mid)
    coarse = coarse.float().clamp(0, 1)
    yield
    model.credibility_map(latents, model.vqvae.global_quantizer.codebook)
    yield
    blended = model.coarse_composite(coarse, damaged, known)
    yield
    model.refiner(blended, known)
    yield


def example(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    known = torch.ones(1, 1, size, size)
    known[..., size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 0
    return torch.rand(1, 3, size, size).to(device), known.to(device)


def operations(model: HVQInpainter, size: int, device: torch.device) -> int:
    """Multiplications and additions of a pass; fused attention would not be counted."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*example(size, device))
    return counter.get_total_flops()


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Multiplications and additions a second of a product of large square matrices."""
    side = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: left @ right, device)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def one_pass(
    model: HVQInpainter, inputs: tuple[torch.Tensor, torch.Tensor], dtype: str, order: str, device: torch.device
) -> list[float]:
    """Seconds of each stage."""
    with ExitStack() as stack:
        stack.enter_context(running_in(dtype, device))
        if order == "channels first":
            for module in ("vqvae", "refiner"):
                stack.enter_context(patch(f"hvq_inpaint.{module}.channels_last", torch.Tensor.contiguous))
        going = stages(model, *inputs)
        return [seconds(lambda: next(going), device) for _ in STAGES]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--model", default="hub/model", help="a model folder (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="in pixels (default: 256 512)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="rounds (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which takes minutes to start")
    options = parser.parse_args()
    device = find_device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # the floor in the numbers of convolutions
    model = HVQInpainter.from_pretrained(options.model).to(device)
    compiled = torch.compile(model) if options.compile else None
    fast = str(fast_dtype(device)).removeprefix("torch.")
    machine = f"{device.type} ({device_name(device)}), {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {machine}; `auto` is {fast}")
    print(f"Medians of {options.repeats} rounds after one of warm-up, milliseconds\n")
    print("| pixels | numbers | order | " + " | ".join(STAGES) + " | whole | floor | floor / whole |")
    print("|---:|---|---|" + "---:|" * (len(STAGES) + 3))
    notes = []
    for size in options.sizes:
        inputs = example(size, device)
        needed = operations(model, size, device)
        times: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        rates: dict[str, list[float]] = defaultdict(list)
        for round_ in range(options.repeats + 1):
            for dtype in ("float32", "bfloat16"):
                rate = matrix_rate(getattr(torch, dtype), device)
                if round_:
                    rates[dtype].append(rate)
            for dtype, order in FORMS:
                spent = one_pass(model, inputs, dtype, order, device)
                if round_:
                    times[dtype, order].append(spent)
            if compiled is not None:
                for dtype in ("float32", "bfloat16"):
                    with running_in(dtype, device):
                        spent = seconds(partial(compiled, *inputs), device)
                    if round_:
                        times[dtype, "compiled"].append([spent])
                    else:
                        notes.append(f"{size} pixels: torch.compile took {spent:.0f} s for {dtype}")
        for (dtype, order), spent in times.items():
            floor = needed / statistics.median(rates[dtype])
            whole = statistics.median(map(sum, spent))
            columns = [f"{1e3 * statistics.median(column):.0f}" for column in zip(*spent, strict=True)]
            if len(columns) == 1:
                columns = ["-"] * len(STAGES)
            print(
                f"| {size} | {dtype} | {order} | {' | '.join(columns)} | {1e3 * whole:.0f} | {1e3 * floor:.0f} | "
                f"{floor / whole:.2f} |",
                flush=True,
            )
        speeds = ", ".join(f"{dtype} {statistics.median(rate) / 1e9:.0f}" for dtype, rate in rates.items())
        notes.append(f"{size} pixels: {needed / 1e9:.0f} billion operations; matrices, billions a second: {speeds}")
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()

"""How fast each stage trains, and where the time goes: `python benchmarks/training.py DATASET`.

In rounds, one after the other: the loop of `train_accelerate.py` in float32 and in bfloat16, with --compile also
compiled; the simplest loop that trains the same in float32 (a loader, the stage, Adam, nothing else); and that one with
the channels of an image apart in memory, where the networks ask for channels-last order. Figures are medians over the
steps of all rounds, but for the first steps of each. The floor is the speed at which the stage's multiplications and
additions, forward and backward, would be done at the rate at which the machine multiplies large matrices in float32,
measured in the same rounds. A second table says where the simplest loop's time goes, by kind of operator.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.data import InpaintingDataset, Sample, load_images
from hvq_inpaint.execution import device_name, find_device
from hvq_inpaint.inpainter import TRAINING_STAGES
from hvq_inpaint.training import trainer
from hvq_inpaint.training.batches import sample_options
from hvq_inpaint.training.log import METRICS_FILE, read_rows
from hvq_inpaint.training.options import TrainingOptions
from hvq_inpaint.training.stages import AutoencoderStage, EncoderStage, RefinerStage, TrainingStage

WARM_UP = 2  # steps that are not timed
STAGES = {"autoencoder": AutoencoderStage, "encoder": EncoderStage, "refiner": RefinerStage}
KINDS = (
    ("convolutions", ("convolution", "conv2d", "mkldnn", "cudnn")),
    ("matrices and attention", ("addmm", "::mm", "bmm", "matmul", "linear", "attention")),
    ("optimiser", ("adam",)),
    (
        "element by element",
        ("add", "mul", "sub", "div", "relu", "threshold", "gelu", "clamp", "abs", "pow", "sum", "mean"),
    ),
    ("copies", ("copy_", "contiguous", "cat", "clone", "fill_", "zero_", "index", "gather", "scatter", "upsample")),
)


def make_stage(options: TrainingOptions, device: torch.device) -> TrainingStage:
    torch.manual_seed(0)
    model = HVQInpainter(HVQConfig.preset(options.preset)).to(device)
    stage = STAGES[options.stage](model, options)
    return stage.train()


def batches(options: TrainingOptions) -> Iterator[Sample]:
    samples = InpaintingDataset(load_images(options.dataset), sample_options(options))
    loader = DataLoader(samples, options.batch_size, shuffle=True, drop_last=True, num_workers=options.workers)
    while True:
        yield from loader


def simplest_loop(options: TrainingOptions, device: torch.device) -> list[float]:
    """Seconds of each step."""
    stage, seconds = make_stage(options, device), []
    parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
    coming = batches(options)
    for step in range(options.steps):
        start = time.perf_counter()
        batch = {name: tensor.to(device) for name, tensor in next(coming).items()}
        stage.before_step(step, batch)
        loss, _ = stage(**batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def channels_first_loop(options: TrainingOptions, device: torch.device) -> list[float]:
    """`simplest_loop`, but networks that ask for channels-last order do not get it."""
    with contextlib.ExitStack() as stack:
        for module in ("vqvae", "refiner"):
            stack.enter_context(patch(f"hvq_inpaint.{module}.channels_last", torch.Tensor.contiguous))
        return simplest_loop(options, device)


def with_model(options: TrainingOptions) -> TrainingOptions:
    """The options, once the model that the stage starts from is where it looks for it."""
    if options.stage != TRAINING_STAGES[0]:
        before = TRAINING_STAGES[TRAINING_STAGES.index(options.stage) - 1]
        HVQInpainter(HVQConfig.preset(options.preset)).save_pretrained(Path(options.output) / before / "model")
    return options


def whole_loop(options: TrainingOptions) -> tuple[list[float], list[float]]:
    """Seconds of each step of the package's loop, and of its waiting for data."""
    AcceleratorState._reset_state(reset_partial_state=True)  # which would hold every run to the first one's precision
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer.run([options])
    rows = [row for row in read_rows(Path(options.output) / options.stage / METRICS_FILE) if "data_seconds" in row]
    rows = [row for row in rows if row["step"] > WARM_UP]
    return [options.batch_size / row["images_per_second"] for row in rows], [row["data_seconds"] for row in rows]


def operations(options: TrainingOptions, device: torch.device) -> int:
    """Multiplications and additions of a step, forward and backward; fused attention would not be counted."""
    stage, batch = make_stage(options, device), next(batches(options))
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    stage.before_step(options.quantization_warmup, batch)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss, _ = stage(**batch)
        loss.backward()
    return counter.get_total_flops()


def matrix_rate(device: torch.device) -> float:
    """Multiplications and additions a second of a product of large square matrices of float32; the best of five."""
    side = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def kinds_of_operators(options: TrainingOptions, device: torch.device) -> dict[str, float]:
    """The share of each kind of operator in the time of a step, from a profile of three."""
    stage, coming = make_stage(options, device), batches(options)
    parameters = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, fused=True)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    times: dict[str, float] = defaultdict(float)
    for step in range(4):
        batch = {name: tensor.to(device) for name, tensor in next(coming).items()}
        stage.before_step(options.quantization_warmup + step, batch)
        with profile(activities=activities) if step else contextlib.nullcontext() as profiled:
            loss, _ = stage(**batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        for event in profiled.key_averages() if profiled else ():
            spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            name = event.key.lower()
            kind = next((kind for kind, parts in KINDS if any(part in name for part in parts)), "other")
            times[kind] += spent
    whole = sum(times.values())
    return {kind: spent / whole for kind, spent in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", help="a folder of photographs")
    parser.add_argument("--preset", default="small", help="of the networks' sizes (default: %(default)s)")
    parser.add_argument("--crop-size", type=int, default=128, help="in pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images a step (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that load data (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=8, help="of each loop in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile, which takes minutes to start")
    options = parser.parse_args()
    device = find_device("auto")
    threads = f"{torch.get_num_threads()} threads, {options.workers} workers"
    print(f"torch {torch.__version__}, {device.type} ({device_name(device)}), {threads}")
    print(f"Preset {options.preset}, crops of {options.crop_size}, {options.batch_size} a step, float32\n")
    titles = ["`train_accelerate.py`, images/s", "simplest loop", "ratio", "channels first", "floor", "of the floor"]
    titles += ["bfloat16", "compiled"] if options.compile else ["bfloat16"]
    print(f"| stage | {' | '.join(titles)} | waiting for data |\n|---|{'---:|' * (len(titles) + 1)}")
    shares = {}
    for stage in TRAINING_STAGES:
        spent: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                settings = TrainingOptions(
                    stage=stage,
                    dataset=options.dataset,
                    output=folder,
                    preset=options.preset,
                    steps=options.steps,
                    batch_size=options.batch_size,
                    crop_size=options.crop_size,
                    quantization_warmup=1,
                    workers=options.workers,
                    mixed_precision="no",
                    log_every=1,
                    log_with=("none",),
                )
                spent["rate"].append(matrix_rate(device))
                ours, waited = whole_loop(with_model(settings))
            spent["ours"] += ours
            spent["data"] += waited
            forms = {"bfloat16": {"mixed_precision": "bf16"}}
            if options.compile:
                forms["compiled"] = {"compile": True}
            for form, changes in forms.items():
                with tempfile.TemporaryDirectory() as folder:
                    spent[form] += whole_loop(with_model(replace(settings, output=folder, **changes)))[0]
            spent["simplest"] += simplest_loop(settings, device)
            spent["channels first"] += channels_first_loop(settings, device)
        medians = {name: statistics.median(values) for name, values in spent.items()}
        speed = {name: options.batch_size / spent for name, spent in medians.items()}
        others = " | ".join(f"{speed[form]:.2f}" for form in forms)
        floor = options.batch_size * medians["rate"] / operations(settings, device)
        print(
            f"| {stage} | {speed['ours']:.2f} | {speed['simplest']:.2f} | {speed['ours'] / speed['simplest']:.2f} | "
            f"{speed['channels first']:.2f} | {floor:.2f} | {speed['ours'] / floor:.0%} | {others} | "
            f"{1e3 * medians['data']:.1f} ms a step |",
            flush=True,
        )
        shares[stage] = kinds_of_operators(settings, device)
    print(f"\nThe machine multiplies matrices at {medians['rate'] / 1e9:.0f} billion operations a second.\n")
    kinds = [kind for kind, _ in KINDS] + ["other"]
    print("| stage | " + " | ".join(kinds) + " |")
    print("|---|" + "---:|" * len(kinds))
    for stage, of_stage in shares.items():
        print(f"| {stage} | " + " | ".join(f"{of_stage.get(kind, 0):.0%}" for kind in kinds) + " |")


if __name__ == "__main__":
    main()

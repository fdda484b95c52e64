"""Weak scaling, measured here and predicted for GPUs: `python benchmarks/scaling.py DATASET`.

Measured, in rounds, for each stage: the images a second of one process with one thread, of two such processes that
know nothing of each other, and of two that train together over gloo. What they lose together is compared with what the
formula of docs/scaling.md says for the measured time of an all-reduce of the gradients.

Predicted by the same formula: 1, 8, 64 and 512 GPUs, from the counted operations of a step, the measured cost of making
a sample and of reading one, and the assumptions that the options state.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.data import decode_image, image_name, load_images, make_sample, spread, undecoded
from hvq_inpaint.inpainter import TRAINING_STAGES
from hvq_inpaint.training.batches import sample_options
from hvq_inpaint.training.log import METRICS_FILE, read_rows
from hvq_inpaint.training.options import TrainingOptions
from hvq_inpaint.training.stages import AutoencoderStage, EncoderStage, RefinerStage

ROOT = Path(__file__).parent.parent
STAGES = {"autoencoder": AutoencoderStage, "encoder": EncoderStage, "refiner": RefinerStage}
WARM_UP = 3  # steps that are not timed
BACKWARD = 2 / 3  # of a step's operations
# Collectives of a step beside that of the gradients, each of at most 262 kB: the loss and the request to stop; in stage
# 1 the counts and sums of two codebooks; in stage 2 the threshold and the codes that are used; of a streamed set how
# many samples each process holds.
SMALL_COLLECTIVES = {"autoencoder": 1 + 4 + 1, "encoder": 1 + 2 + 1, "refiner": 1 + 1}


def step_seconds(alone: float, reduction: float, small: float, overlap: float, jitter: float, processes: int) -> float:
    """The formula of docs/scaling.md.

    Args:
        alone: seconds of a step of one process.
        reduction: seconds of the gradients' all-reduce.
        small: seconds of all small collectives.
        overlap: share of the backward pass behind which the all-reduce hides.
        jitter: standard deviation of a process's step, relative.
        processes: that wait for the slowest of them.
    """
    exposed = max(0.0, reduction - overlap * BACKWARD * alone)
    slowest = 1 + jitter * math.sqrt(2 * math.log(processes)) if processes > 1 else 1
    return alone * slowest + (exposed + small if processes > 1 else 0)


def all_reduce_seconds(number: int, bandwidth: float, latency: float, processes: int) -> float:
    """A ring's time for `number` bytes, with the latency of a tree."""
    if processes == 1:
        return 0
    return 2 * (processes - 1) / processes * number / bandwidth + 2 * math.log2(processes) * latency


def command(dataset: str, output: str, stage: str, options: argparse.Namespace) -> list[str]:
    more = f"--stage {stage} --preset {options.preset} --steps {options.steps} --batch-size {options.batch_size}"
    more += f" --crop-size {options.crop_size} --workers 0 --quantization-warmup 1 --log-every 1 --log-with none"
    more += " --mixed-precision no"
    return [str(ROOT / "train_accelerate.py"), "--dataset", dataset, "--output", output, *more.split()]


def run(stage: str, options: argparse.Namespace, together: bool, number: int) -> list[float]:
    """Images a second of each timed step: of `number` processes together, or summed over as many that are apart."""
    model = HVQInpainter(HVQConfig.preset(options.preset))
    before = TRAINING_STAGES[max(0, TRAINING_STAGES.index(stage) - 1)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(number), "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    runs = 1 if together else number
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for one in range(runs):
            output = Path(folder, str(one))
            if stage != before:
                model.save_pretrained(output / before / "model")
            arguments = command(options.dataset, str(output), stage, options)
            arguments = [*launch, *arguments] if together else arguments
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen([sys.executable, *arguments], env=environment, **silent))
        for process in processes:
            if process.wait():
                raise SystemExit(f"A run of stage {stage} failed.")
        speeds = []
        for one in range(runs):
            rows = read_rows(Path(folder, str(one), stage, METRICS_FILE))
            speeds.append([row["images_per_second"] for row in rows if row["step"] > WARM_UP])
    return [sum(values) for values in zip(*speeds, strict=True)]


def _reduce(rank: int, folder: str, elements: list[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    seconds = []
    for number in elements:
        tensor, spent = torch.ones(number), []
        for _ in range(12):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(tensor)
            spent.append(time.perf_counter() - start)
        seconds.append(statistics.median(spent[2:]))
    if rank == 0:
        Path(folder, "seconds").write_text(" ".join(map(str, seconds)))
    dist.destroy_process_group()


def gloo_seconds(elements: list[int]) -> list[float]:
    """Of all-reduces of so many float32 between two processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_reduce, args=(folder, elements), nprocs=2)
        return [float(word) for word in Path(folder, "seconds").read_text().split()]


def make_stage(name: str, preset: str) -> tuple[AutoencoderStage | EncoderStage | RefinerStage, int]:
    """A stage, and the bytes of its gradients."""
    stage = STAGES[name](HVQInpainter(HVQConfig.preset(preset)), TrainingOptions(name, "", "", preset))
    return stage.train(), 4 * sum(part.numel() for part in stage.parameters() if part.requires_grad)


def operations(name: str, preset: str, crop_size: int) -> int:
    """Multiplications and additions for one image, forward and backward."""
    stage, _ = make_stage(name, preset)
    if name == "autoencoder":
        stage.warming_up = False
    image, known = torch.rand(1, 3, crop_size, crop_size), torch.ones(1, 1, crop_size, crop_size)
    known[..., : crop_size // 2] = 0
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss, _ = stage(image, known)
        loss.backward()
    return counter.get_total_flops()


def sample_costs(dataset: str, crop_size: int) -> tuple[float, float]:
    """Seconds of one core for a sample, and bytes of an image's file."""
    torch.set_num_threads(1)
    images = undecoded(load_images(dataset))
    indices = spread(len(images), 300)
    sampling = sample_options(TrainingOptions("encoder", dataset, "", crop_size=crop_size))
    size, start = 0, time.perf_counter()
    for index in indices:
        value = images[index]["image"]
        make_sample(decode_image(value, image_name(value)), sampling, 0, index)
    seconds = (time.perf_counter() - start) / len(indices)
    for index in indices:
        value = images[index]["image"]
        size += len(value["bytes"]) if value["bytes"] else Path(value["path"]).stat().st_size
    return seconds, size / len(indices)


def measure(options: argparse.Namespace) -> None:
    print(f"Two processes of one thread each; preset {options.preset}, crops of {options.crop_size}, ", end="")
    print(f"{options.batch_size} a step and process\n")
    gradients = [make_stage(stage, options.preset)[1] for stage in TRAINING_STAGES]
    seconds = gloo_seconds([*(number // 4 for number in gradients), 1000])
    titles = ["one, images/s", "two apart", "two together", "together / (2 x one)", "together / apart"]
    titles += ["gradients, MB", "all-reduce, ms", "formula"]
    print(f"| stage | {' | '.join(titles)} |\n|---|{'---:|' * len(titles)}")
    for stage, number, reduction in zip(TRAINING_STAGES, gradients, seconds, strict=False):
        speeds: dict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            speeds["one"] += run(stage, options, together=False, number=1)
            speeds["apart"] += run(stage, options, together=False, number=2)
            speeds["together"] += run(stage, options, together=True, number=2)
        one, apart, together = (statistics.median(speeds[name]) for name in ("one", "apart", "together"))
        alone = 2 * options.batch_size / apart  # with another process beside it
        small = SMALL_COLLECTIVES[stage] * seconds[-1]
        # Over gloo one thread does both: nothing hides.
        formula = alone / step_seconds(alone, reduction, small, overlap=0, jitter=options.jitter, processes=2)
        shares = f"{together / (2 * one):.0%} | {together / apart:.0%}"
        print(
            f"| {stage} | {one:.2f} | {apart:.2f} | {together:.2f} | {shares} | {number / 1e6:.1f} | "
            f"{1e3 * reduction:.1f} | {formula:.0%} |",
            flush=True,
        )


def predict(options: argparse.Namespace) -> None:
    sample, size = sample_costs(options.dataset, 256)
    print(f"\nA sample of 256 x 256 pixels costs a core {1e3 * sample:.1f} ms; an image has {size / 1e3:.0f} kB.")
    rate = options.utilisation * options.gpu_tflops * 1e12
    for stage in TRAINING_STAGES:
        number = operations(stage, "paper", 256)
        _, gradients = make_stage(stage, "paper")
        alone = options.gpu_batch * number / rate
        print(f"\n{stage}: {number / 1e9:.0f} billion operations an image, gradients of {gradients / 1e6:.0f} MB\n")
        titles = ["networks, ms a step", "efficiency", "data, ms a step", "images/s", "minutes an epoch"]
        titles += ["steps an epoch", "read, GB/s"]
        print(f"| GPUs | {' | '.join(titles)} |\n|---:|{'---:|' * len(titles)}")
        data = options.gpu_batch * sample / options.cores
        for processes in (1, 8, 64, 512):
            bandwidth = (options.node_bandwidth if processes <= 8 else options.network_bandwidth) * 1e9
            latency = (options.node_latency if processes <= 8 else options.network_latency) * 1e-6
            reduction = all_reduce_seconds(gradients, bandwidth, latency, processes)
            small = SMALL_COLLECTIVES[stage] * all_reduce_seconds(262_000, bandwidth, latency, processes)
            networks = step_seconds(alone, reduction, small, options.overlap, options.jitter, processes)
            speed = processes * options.gpu_batch / max(networks, data)
            print(
                f"| {processes} | {1e3 * networks:.1f} | {alone / networks:.0%} | {1e3 * data:.1f} | {speed:.0f} | "
                f"{options.images / speed / 60:.1f} | {options.images // (processes * options.gpu_batch)} | "
                f"{speed * size / 1e9:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", help="a folder of photographs")
    here = parser.add_argument_group("measured")
    here.add_argument("--preset", default="small", help="of the networks' sizes (default: %(default)s)")
    here.add_argument("--crop-size", type=int, default=128, help="in pixels (default: %(default)s)")
    here.add_argument("--batch-size", type=int, default=4, help="images a step and process (default: %(default)s)")
    here.add_argument("--steps", type=int, default=12, help="of each run (default: %(default)s)")
    here.add_argument("--rounds", type=int, default=2, help="0: only predict (default: %(default)s)")
    there = parser.add_argument_group("assumed of the GPUs")
    for name, default, help_ in (
        ("gpu-tflops", 989, "dense bfloat16 peak of a GPU, by its data sheet"),
        ("utilisation", 0.2, "share of it that a step reaches"),
        ("gpu-batch", 32, "images a step and GPU"),
        ("cores", 12, "that load data for a GPU"),
        ("node-bandwidth", 200, "GB/s of an all-reduce within a machine of eight GPUs"),
        ("network-bandwidth", 25, "GB/s of each GPU's all-reduce between machines"),
        ("node-latency", 10, "microseconds of a message within a machine"),
        ("network-latency", 25, "microseconds of a message between machines"),
        ("overlap", 0.5, "share of the backward pass behind which the all-reduce hides"),
        ("jitter", 0.03, "standard deviation of a process's step, relative"),
        ("images", 8_000_000, "of the set"),
    ):
        there.add_argument(f"--{name}", type=type(default), default=default, help=f"{help_} (default: %(default)s)")
    options = parser.parse_args()
    if options.rounds:
        measure(options)
    predict(options)


if __name__ == "__main__":
    main()

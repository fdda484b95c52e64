"""How fast samples are made, and what they cost: `python benchmarks/loading.py DATASET`.

The photographs are packed into Parquet shards first. Then, in rounds: batches of crops and masks from the folder,
from the prepared Parquet files and from the streamed ones, by each number of workers, while nothing else is done.
Figures are medians over the rounds. A second table says what the parts of one sample cost, on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import torch

from hvq_inpaint.data import decode_image, image_name, load_images, make_sample, spread, undecoded
from hvq_inpaint.data.shards import write_shards
from hvq_inpaint.masks import MASK_KINDS, make_mask
from hvq_inpaint.training.batches import TrainingBatches, sample_options
from hvq_inpaint.training.checkpoints import Progress
from hvq_inpaint.training.options import TrainingOptions


def images_per_second(options: TrainingOptions, batches: int) -> float:
    """Of `batches` batches after the first ones, with nothing else to do."""
    cpu = torch.device("cpu")
    alone = SimpleNamespace(process_index=0, num_processes=1, device=cpu, gather=lambda rows: rows, print=print)
    coming = TrainingBatches(alone, options).start(Progress())
    ahead = 2 * max(1, options.workers)  # what workers have made while the first one was awaited
    for _ in islice(coming, ahead):
        pass
    start = time.perf_counter()
    for _ in islice(coming, batches):
        pass
    spent = time.perf_counter() - start
    coming.close()
    return batches * options.batch_size / spent


def milliseconds(function, items: list) -> float:
    start = time.perf_counter()
    for item in items:
        function(item)
    return 1e3 * (time.perf_counter() - start) / len(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", help="a folder of photographs")
    parser.add_argument("--crop-size", type=int, default=256, help="in pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument(
        "--batches", type=int, default=260, help="timed in a round, more than an epoch has (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    speeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        sizes = [shard.size for shard in write_shards(Path(options.dataset), shards)]
        sources = {"folder": options.dataset, "Parquet": str(shards), "streamed Parquet": str(shards)}
        common = {"crop_size": options.crop_size, "batch_size": options.batch_size}
        for _ in range(options.rounds):
            for source, dataset in sources.items():
                for workers in options.workers:
                    settings = TrainingOptions(
                        "encoder", dataset, folder, streaming=source.startswith("streamed"), workers=workers, **common
                    )
                    speeds[source, workers].append(images_per_second(settings, options.batches))
        images = undecoded(load_images(options.dataset))
        values = [images[index]["image"] for index in spread(len(images), 300)]
        made = [decode_image(value, image_name(value)) for value in values]
        sampling = sample_options(TrainingOptions("encoder", options.dataset, folder, **common))
        numbers = list(range(300))
        costs = {
            "read and decode": milliseconds(lambda value: decode_image(value, image_name(value)), values),
            **{
                f"mask, {kind}": milliseconds(lambda n, kind=kind: make_mask(kind, 256, 256, 0.1 + n / 600, n), numbers)
                for kind in MASK_KINDS
            },
            "crop, flip and mask": milliseconds(lambda n: make_sample(made[n % len(made)], sampling, 0, n), numbers),
        }
    print(f"{len(images)} images, {sum(sizes) / 1e6:.0f} MB in {len(sizes)} shards; crops of {options.crop_size}\n")
    print("| source | " + " | ".join(f"{n} workers, images/s" for n in options.workers) + " |")
    print("|---|" + "---:|" * len(options.workers))
    for source in sources:
        figures = (f"{statistics.median(speeds[source, workers]):.0f}" for workers in options.workers)
        print(f"| {source} | {' | '.join(figures)} |")
    print("\n| part of a sample | ms |\n|---|---:|")
    for part, cost in costs.items():
        print(f"| {part} | {cost:.2f} |")


if __name__ == "__main__":
    main()

"""Time and memory of filling a hole in a large photograph: `python benchmarks/large_photographs.py`.

Memory is the highest resident size while `inpaint` runs for the first time in a process, above that of the loaded model
with the decoded photograph and its mask; the result, which is as large as the photograph, is given apart. Beyond it,
memory should grow with the hole and not with the photograph.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from PIL import Image

from hvq_inpaint import HVQInpainter
from hvq_inpaint.execution import fast_dtype

# Megapixels of the photograph (3:2), and side of the hole in pixels.
CASES = ((6, 300), (12, 300), (24, 300), (24, 100), (24, 600), (24, 1200))


def peak_memory(function: Callable[[], object]) -> float:
    """How far the resident size of this process rises while `function` runs, in MB."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = function()
    done.set()
    watcher.join()
    del result
    return (peak - before) / 1e6


def photograph(megapixels: int) -> Image.Image:
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    rows = np.arange(height, dtype=np.uint16)[:, None]
    columns = np.arange(round(1.5 * height), dtype=np.uint16)[None]
    bands = [((rows * step + columns) // 16).astype(np.uint8) for step in (1, 2, 3)]
    return Image.merge("RGB", [Image.fromarray(band) for band in bands])


def measure(model: str, megapixels: int, side: int, repeats: int) -> tuple[float, float, float]:
    """Seconds (median), peak memory and memory of the result in MB; in a process that has filled nothing before."""
    inpainter = HVQInpainter.from_pretrained(model)
    image = photograph(megapixels)
    mask = np.zeros((image.height, image.width), dtype=bool)
    top, left = (image.height - side) // 2, (image.width - side) // 2
    mask[top : top + side, left : left + side] = True
    memory = peak_memory(lambda: inpainter.inpaint(image, mask))  # which is the warm-up as well
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        inpainter.inpaint(image, mask)
        seconds.append(time.perf_counter() - start)
    # Pillow keeps RGB in four bytes a pixel.
    return statistics.median(seconds), memory, image.width * image.height * 4 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub/model", help="a model folder (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each case (default: %(default)s)")
    options = parser.parse_args()
    fast = str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {fast}, {options.repeats} runs of each\n")
    print("| photograph | hole | seconds (median) | memory above model and input, MB | of that the result, MB |")
    print("|---:|---:|---:|---:|---:|")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for megapixels, side in CASES:
            arguments = (options.model, megapixels, side, options.repeats)
            seconds, memory, result = pool.apply(measure, arguments)
            print(f"| {megapixels} MP | {side} px | {seconds:.1f} | {memory:.0f} | {result:.0f} |", flush=True)


if __name__ == "__main__":
    main()

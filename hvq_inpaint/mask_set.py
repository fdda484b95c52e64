"""The paper's set of mask files (Section 4.1): so many masks for each whole percent of missing pixels."""

from __future__ import annotations

import json
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .errors import InvalidInputError
from .masks import MASK_KINDS, make_mask

SETTINGS_FILE = "masks.json"

# Mask number n of a set has the seed SEEDS_PER_SET * (the set's seed) + n: sets of different seeds share no mask.
SEEDS_PER_SET = 1_000_000

_MASKS_PER_TASK = 25


@dataclass(frozen=True)
class MaskSetOptions:
    """Which masks a set holds. The defaults are the paper's: 51 ratios x 200 = 10,200 masks.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    kind: str = "random_walk"
    size: int = 256  # height and width in pixels
    per_ratio: int = 200
    min_percent: int = 10
    max_percent: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in MASK_KINDS:
            raise InvalidInputError(f"There is no mask kind {self.kind!r}; choose one of {', '.join(MASK_KINDS)}.")
        if self.size < 1:
            raise InvalidInputError(f"The size of the masks must be at least 1 pixel, not {self.size}.")
        if not 1 <= self.per_ratio <= SEEDS_PER_SET:
            raise InvalidInputError(
                f"The number of masks for each ratio must lie between 1 and {SEEDS_PER_SET}, not {self.per_ratio}."
            )
        if not 1 <= self.min_percent <= self.max_percent <= 99:
            raise InvalidInputError(
                f"The percentages must satisfy 1 <= min <= max <= 99, not {self.min_percent} and {self.max_percent}."
            )
        if self.seed < 0:
            raise InvalidInputError(f"The seed must not be negative, and it is {self.seed}.")

    @property
    def number_of_masks(self) -> int:
        return self.per_ratio * (self.max_percent + 1 - self.min_percent)


def mask_seed(set_seed: int, number: int) -> int:
    """The seed of mask `number`, counted from 0 at each ratio, in the set with `set_seed`."""
    return SEEDS_PER_SET * set_seed + number


def mask_path(kind: str, percent: int, number: int) -> Path:
    """Where a mask lies in the set's folder, such as `random_walk/37/0003.png`."""
    return Path(kind, f"{percent:02d}", f"{number:04d}.png")


def write_mask_set(folder: Path, options: MaskSetOptions, workers: int | None = None, overwrite: bool = False) -> None:
    """Write a set's masks as PNG files of one bit a pixel, white = repaint, and then `masks.json`.

    A mask file is complete or absent, whenever the work is broken off; `masks.json` comes last, so where it is, the set
    is complete.

    Args:
        folder: made if it does not exist.
        workers: processes; None: one for each core.
        overwrite: replace a set that lies in `folder`; files that are no masks of a set stay.

    Raises:
        InvalidInputError: `folder` is not empty and `overwrite` is not set, or it is no folder, or `workers` is below
            1.
    """
    if workers is None:
        workers = available_cores()
    if workers < 1:
        raise InvalidInputError(f"The number of workers must be at least 1, not {workers}.")
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder} is a file; the masks need a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InvalidInputError(
                f"The folder {folder} is not empty; choose another one, or --overwrite to replace the mask set in it."
            )
        _remove_set(folder)
    percents = range(options.min_percent, options.max_percent + 1)
    for percent in percents:
        (folder / mask_path(options.kind, percent, 0)).parent.mkdir(parents=True, exist_ok=True)
    tasks = [
        (percent, range(first, min(first + _MASKS_PER_TASK, options.per_ratio)))
        for percent in percents
        for first in range(0, options.per_ratio, _MASKS_PER_TASK)
    ]
    with tqdm(total=options.number_of_masks, unit="mask", disable=None) as bar:
        for number in _finished(folder, options, tasks, min(workers, len(tasks))):
            bar.update(number)
    partial = folder / f"{SETTINGS_FILE}.partial"
    partial.write_text(json.dumps(_description(options), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / SETTINGS_FILE)


def _finished(folder: Path, options: MaskSetOptions, tasks: list[tuple[int, range]], workers: int) -> Iterator[int]:
    """Do all tasks; yields the number of masks of each one as it ends."""
    if workers == 1:
        for percent, numbers in tasks:
            yield _write_masks(folder, options, percent, numbers)
        return
    # Fresh processes on every platform: a fork of a process that runs threads, as a progress bar does, may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_write_masks, folder, options, percent, numbers) for percent, numbers in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_masks(folder: Path, options: MaskSetOptions, percent: int, numbers: range) -> int:
    """Write the masks `numbers` of one ratio; returns how many there are."""
    for number in numbers:
        mask = make_mask(options.kind, options.size, options.size, percent / 100, mask_seed(options.seed, number))
        _save(mask, folder / mask_path(options.kind, percent, number))
    return len(numbers)


def _save(mask: np.ndarray, path: Path) -> None:
    """A bool mask (H, W) as a PNG, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    # Runs of equal bytes are most of what there is to compress: as small as the slowest search, ten times as fast.
    Image.fromarray(mask).save(partial, format="PNG", compress_type=zlib.Z_RLE)
    partial.replace(path)


def _remove_set(folder: Path) -> None:
    """Remove a mask set and its unfinished files, `masks.json` first, as what is left is no complete set any more."""
    for path in (folder / SETTINGS_FILE, folder / f"{SETTINGS_FILE}.partial"):
        path.unlink(missing_ok=True)
    for kind in MASK_KINDS:
        for pattern in ("*.png", "*.png.partial"):
            for path in (folder / kind).glob(f"[0-9][0-9]/[0-9][0-9][0-9][0-9]{pattern}"):
                path.unlink()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _description(options: MaskSetOptions) -> dict[str, object]:
    """What `masks.json` says: enough to make any mask of the set again."""
    return {
        **asdict(options),
        "number_of_masks": options.number_of_masks,
        "polarity": "white = repaint",
        "file": "{kind}/{percent:02d}/{number:04d}.png, number = 0 .. per_ratio - 1",
        "mask_seed": f"{SEEDS_PER_SET} * seed + number",
        "mask": "hvq_inpaint.masks.make_mask(kind, size, size, percent / 100, mask_seed)",
    }

"""The refiner's inputs, made once for several runs that differ in the refiner only.

What the frozen VQ stage makes of a damaged crop is the same in all of them, and takes half of the time of a step with a
narrow refiner.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..data import InpaintingDataset, Sample
from ..inpainter import HVQInpainter, evaluating

_BATCH_SIZE = 16
_NAMES = ("image", "known", "coarse")


class CachedInputs(Dataset):
    """Samples with the VQ stage's result beside them, on the disk with 8 bits a channel.

    Args:
        folder: what `cache_inputs` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES}

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the same crops and masks in every epoch, as they are enough for one."""

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, index: int) -> Sample:
        """`image` and `coarse` (3, S, S) in [0, 1], `known` (1, S, S) with 1 = known."""
        return {name: torch.from_numpy(array[index].copy()).float() / 255 for name, array in self.arrays.items()}


@torch.inference_mode()
def cache_inputs(
    model: HVQInpainter, samples: InpaintingDataset, number: int, folder: Path, device: torch.device
) -> CachedInputs:
    """The first `number` samples in the order of a shuffled epoch, then of another, with the model's coarse results.

    Args:
        model: of which the VQ stage is used, in eval mode.
        folder: where they go: three .npy files, written once; a folder that has all three is used as it is.
    """
    if all((folder / f"{name}.npy").is_file() for name in _NAMES):
        return CachedInputs(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = samples.options.crop_size
    partial = {name: folder / f"{name}.partial" for name in _NAMES}
    shapes = {"image": (number, 3, size, size), "known": (number, 1, size, size), "coarse": (number, 3, size, size)}
    arrays = {
        name: np.lib.format.open_memmap(partial[name], mode="w+", dtype=np.uint8, shape=shapes[name]) for name in _NAMES
    }
    model = model.to(device)
    order = _order(len(samples), number, samples.options.seed)
    with evaluating(model), tqdm(total=number, desc="inputs", unit="crop", disable=None) as bar:
        for start in range(0, number, _BATCH_SIZE):
            batch = []
            for epoch, index in order[start : start + _BATCH_SIZE]:
                samples.set_epoch(epoch)
                batch.append(samples[index])
            made = {name: torch.stack([sample[name] for sample in batch]) for name in ("image", "known")}
            damaged, known = (made["image"] * made["known"]).to(device), made["known"].to(device)
            _, _, made["coarse"] = model.vq_stage(damaged, known)
            for name, array in arrays.items():
                array[start : start + len(batch)] = (made[name] * 255).round().byte().cpu().numpy()
            bar.update(len(batch))
    for name, array in arrays.items():
        array.flush()
        partial[name].replace(folder / f"{name}.npy")
    return CachedInputs(folder)


def _order(length: int, number: int, seed: int) -> list[tuple[int, int]]:
    """(epoch, index) of the samples: every epoch in an order of its own."""
    order: list[tuple[int, int]] = []
    generator = np.random.default_rng(seed)
    for epoch in range(-(-number // length)):
        order += [(epoch, int(index)) for index in generator.permutation(length)]
    return order[:number]

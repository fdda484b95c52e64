"""Samples of images: crop, flip, mask.

Everything random about a sample comes from a generator keyed by (seed, epoch, index), so a sample does not depend on
what was made before, nor, unless it is streamed, on which worker or process makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InvalidInputError
from ..masks import MASK_KINDS, RawRandom, make_mask
from .sources import decode_image, image_name, spread, undecoded

Sample = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SampleOptions:
    """How samples are made of images."""

    crop_size: int = 256
    mask_size: int = 256  # masks are made at this size and cropped: large holes stay large on small crops
    mask_kinds: tuple[str, ...] = MASK_KINDS
    min_ratio: float = 0.1
    max_ratio: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_size < 8 or self.crop_size % 8:
            raise InvalidInputError(f"The crop size must be a multiple of 8, not {self.crop_size}.")
        if not 0 < self.min_ratio <= self.max_ratio < 1:
            raise InvalidInputError(
                f"The mask ratios must satisfy 0 < min <= max < 1, not {self.min_ratio} and {self.max_ratio}."
            )
        unknown = sorted(set(self.mask_kinds) - set(MASK_KINDS))
        if unknown or not self.mask_kinds:
            raise InvalidInputError(
                f"There is no mask kind {', '.join(unknown) or 'given'}; choose among {', '.join(MASK_KINDS)}."
            )


def make_sample(image: Image.Image, options: SampleOptions, epoch: int, index: int) -> Sample:
    """One training sample: a random crop, flipped half of the time, and a random mask.

    Returns:
        `image` (3, S, S) float32 in [0, 1] and `known` (1, S, S) float32, 1 = known.
    """
    random = RawRandom("sample", options.seed, epoch, index)
    size = options.crop_size
    image = at_least(image.convert("RGB"), size)
    left = random.integer(0, image.width - size)
    top = random.integer(0, image.height - size)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    if random.integer(0, 1):
        pixels = pixels[:, ::-1]
    kind = options.mask_kinds[random.integer(0, len(options.mask_kinds) - 1)]
    canvas = max(size, options.mask_size)
    ratio = random.uniform(options.min_ratio, options.max_ratio)
    mask = make_mask(kind, canvas, canvas, ratio, seed=random.integer(0, 2**62))
    window = np.zeros((size, size), dtype=bool)
    # A crop of the mask may miss the hole, or hold nothing else; look for a better one a few times.
    for _ in range(8):
        top, left = random.integer(0, canvas - size), random.integer(0, canvas - size)
        window = mask[top : top + size, left : left + size]
        if 0.02 <= window.mean() <= 0.9:
            break
    known = torch.from_numpy(~window)[None].float()
    return {"image": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255, "known": known}


def at_least(image: Image.Image, size: int) -> Image.Image:
    """`image`, enlarged if its short side is below `size` pixels."""
    short = min(image.size)
    if short >= size:
        return image
    return image.resize(
        (max(size, round(image.width * size / short)), max(size, round(image.height * size / short))),
        Image.Resampling.LANCZOS,
    )


def center_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central `size` x `size` pixels, (size, size, 3) uint8, of an image that is enlarged first if it is
    smaller.
    """
    image = at_least(image.convert("RGB"), size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def validation_samples(images: Any, number: int, size: int, kinds: Sequence[str], seed: int = 0) -> list[Sample]:
    """Fixed samples for validation.

    `number` images spread over the set, centre crops, masks of 10 to 60 % of each kind in turn.

    Args:
        images: what `load_images` gives.

    Raises:
        UnreadableImageError: one of them can't be decoded.
    """
    images = undecoded(images)
    indices = spread(len(images), number)
    samples = []
    for position, index in enumerate(indices):
        value = images[index]["image"]
        pixels = center_crop(decode_image(value, image_name(value, default=f"row {index}")), size)
        ratio = 0.1 + 0.5 * (position + 0.5) / len(indices)
        mask = make_mask(kinds[position % len(kinds)], size, size, round(ratio, 6), seed + position)
        samples.append(
            {
                "image": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
                "known": torch.from_numpy(~mask)[None].float(),
            }
        )
    return samples

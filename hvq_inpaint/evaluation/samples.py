"""The photographs and masks of an evaluation: the same for every method, every time."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import center_crop, list_images, load_images, open_upright, undecoded
from ..errors import InvalidInputError
from ..hole import mask_of_picture
from ..images import open_image
from ..masks import RawRandom, in_bucket, make_mask, ratio_in_bucket
from .options import FILE_MASKS, Bucket, EvaluationOptions, bucket_name

_MAX_TRIES = 10_000


class DatasetFiles(Sequence):
    """The image files of a folder, of Parquet or of a dataset on the Hub: paths, or bytes where there are no paths."""

    def __init__(self, source: str, split: str) -> None:
        self.source = source
        self.rows = undecoded(load_images(source, split))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Path | BytesIO:
        file = self.rows[index]["image"]
        if file is None:
            raise InvalidInputError(f"Row {index} of {self.source} holds no image.")
        if file["bytes"] is None:
            return Path(file["path"])
        opened = BytesIO(file["bytes"])
        opened.name = f"Image {index} of {self.source}"  # what an error calls it
        return opened


def evaluation_crop(file: Path | BytesIO, size: int) -> np.ndarray:
    """The central crop of an upright image file: (size, size, 3) uint8."""
    return center_crop(open_upright(file), size).copy()  # PIL's own pixels are read-only


def evaluation_mask(kind: str, size: int, bucket: Bucket, seed: int, index: int) -> np.ndarray:
    """The mask of image `index`: bool (size, size), True = missing, the share of True in `bucket`.

    Ratio and mask are drawn anew from (kind, bucket, seed, index), so no mask depends on which others are made.

    Raises:
        InvalidInputError: no such mask was found, as the bucket is too narrow for so few pixels.
    """
    low, high = bucket
    for attempt in range(_MAX_TRIES):
        key = (kind, seed, index, attempt)
        ratio = ratio_in_bucket(bucket, *key)
        mask = make_mask(kind, size, size, ratio, RawRandom("evaluation mask", low, high, *key).integer(0, 2**62))
        # Boxes miss their ratio by up to 0.02, and any mask by the rounding to whole pixels.
        if in_bucket(float(mask.mean()), bucket):
            return mask
    raise InvalidInputError(
        f"No {kind} mask of {size} x {size} pixels has a share of missing pixels within {bucket_name(bucket)} %; "
        "choose a wider bucket."
    )


class Masks:
    """The masks of an evaluation, drawn or from files.

    A file is read as everywhere (white = repaint, cut at half) and brought to the size by the nearest pixel; which file
    an image gets is drawn from (bucket, seed, index) among those whose share of missing pixels lies in the bucket.

    Raises:
        InvalidInputError: a mask file can't be read, or a bucket holds none.
    """

    def __init__(self, options: EvaluationOptions) -> None:
        self.options = options
        self.files: dict[Bucket, list[Path]] = {bucket: [] for bucket in options.buckets}
        if FILE_MASKS not in options.mask_kinds:
            return
        for path in list_images(Path(options.mask_folder)):
            # 60 % of 256 x 256 pixels are 39,322 of them, which is a little more than 60 %.
            share = round(float(self._read(path).mean()), 4)
            for bucket, files in self.files.items():
                if in_bucket(share, bucket):
                    files.append(path)
        empty = [bucket_name(bucket) for bucket, files in self.files.items() if not files]
        if empty:
            raise InvalidInputError(
                f"{options.mask_folder} holds no mask with {', '.join(empty)} % of its pixels missing; "
                "name the buckets that it fills with --buckets."
            )

    def mask(self, kind: str, bucket: Bucket, index: int) -> np.ndarray:
        """The mask of image `index`: bool (size, size), True = missing."""
        options = self.options
        if kind != FILE_MASKS:
            return evaluation_mask(kind, options.size, bucket, options.seed, index)
        files = self.files[bucket]
        return self._read(files[RawRandom("mask file", *bucket, options.seed, index).integer(0, len(files) - 1)])

    def _read(self, path: Path) -> np.ndarray:
        mask = Image.fromarray(mask_of_picture(open_image(path)))
        return np.array(mask.resize((self.options.size, self.options.size), Image.Resampling.NEAREST))

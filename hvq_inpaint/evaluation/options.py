"""What an evaluation measures."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import SIZE_MULTIPLE
from ..errors import InvalidInputError
from ..masks import MASK_KINDS, RATIO_BUCKETS

# A value for each image, and the mean of them in the tables.
PIXEL_METRICS = ("psnr", "psnr_hole", "ssim", "l1", "l1_hole")
IMAGE_METRICS = (*PIXEL_METRICS, "lpips")

# One value for the whole set. Their order is that of the tables' rows.
SET_METRICS = ("fid", "fd")
METRICS = (*IMAGE_METRICS, *SET_METRICS)

# The mask kind whose masks are read from files.
FILE_MASKS = "files"

_MIN_SIZE = 16  # the least multiple of 8 that holds an SSIM window
_MIN_NETWORK_SIZE = 32  # of AlexNet and Inception

Bucket = tuple[float, float]


def bucket_name(bucket: Bucket) -> str:
    """(0.1, 0.2) as `10-20`."""
    return "-".join(f"{round(100 * end, 6):g}" for end in bucket)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    mask_kinds: tuple[str, ...] = MASK_KINDS
    mask_folder: str | None = None  # of the masks of kind `files`
    buckets: tuple[Bucket, ...] = RATIO_BUCKETS  # ratios in [low, high) of each bucket
    size: int = 256  # of the central crop, height and width
    seed: int = 0
    limit: int | None = None  # so many images, spread evenly over the dataset
    batch_size: int = 8
    opencv: bool = True  # the rows of the classical methods
    methods: tuple[str, ...] | None = None  # of this model's rows only these; None: all
    outputs: tuple[str, ...] = ()  # folders with the pictures of other methods
    metrics: tuple[str, ...] = PIXEL_METRICS

    def __post_init__(self) -> None:
        for name, chosen, choices in (
            ("mask kind", self.mask_kinds, (*MASK_KINDS, FILE_MASKS)),
            ("metric", self.metrics, METRICS),
        ):
            unknown = [value for value in chosen if value not in choices]
            if unknown or not chosen:
                raise InvalidInputError(
                    f"There is no {name} {', '.join(unknown) or 'given'}; choose among {', '.join(choices)}."
                )
        if FILE_MASKS in self.mask_kinds and not self.mask_folder:
            raise InvalidInputError(f"The mask kind {FILE_MASKS} needs a folder of masks, with --masks.")
        if self.mask_folder and FILE_MASKS not in self.mask_kinds:
            raise InvalidInputError(f"The masks of {self.mask_folder} are not used: add the mask kind {FILE_MASKS}.")
        if not self.buckets:
            raise InvalidInputError("There is no bucket of mask ratios given, such as 10-20.")
        for name, values in (("mask kind", self.mask_kinds), ("bucket", self.buckets), ("metric", self.metrics)):
            if len(set(values)) < len(values):
                raise InvalidInputError(f"Each {name} can be given only once.")
        for low, high in self.buckets:
            if not 0 < low < high < 1:
                raise InvalidInputError(
                    f"A bucket of mask ratios must satisfy 0 < low < high < 100 %, not {bucket_name((low, high))}."
                )
        least = _MIN_NETWORK_SIZE if set(self.metrics) - set(PIXEL_METRICS) else _MIN_SIZE
        if self.size < least or self.size % SIZE_MULTIPLE:
            raise InvalidInputError(
                f"The size must be a multiple of {SIZE_MULTIPLE} and at least {least} for these metrics, "
                f"not {self.size}."
            )
        if self.limit is not None and self.limit < 1:
            raise InvalidInputError(f"The limit must be at least 1 image, not {self.limit}.")
        if self.batch_size < 1:
            raise InvalidInputError(f"The batch size must be at least 1, not {self.batch_size}.")

    @property
    def settings(self) -> list[tuple[str, Bucket]]:
        """Every mask kind with every bucket: what one mask is drawn for on each image."""
        return [(kind, bucket) for kind in self.mask_kinds for bucket in self.buckets]

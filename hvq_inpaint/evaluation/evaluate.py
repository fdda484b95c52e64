"""Figures of a model on a folder of images, by mask kind and bucket of mask ratios, beside the classical methods."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
import torchmetrics
from PIL import ImageOps
from tqdm import tqdm

from .. import __version__
from ..data import center_crop, spread
from ..errors import InvalidInputError
from ..images import open_image, to_tensor
from ..inpainter import SIZE_MULTIPLE, HVQInpainter, evaluating
from ..masks import MASK_KINDS, RATIO_BUCKETS, RawRandom, in_bucket, make_mask, ratio_in_bucket
from ..metrics import mean_l1, psnr, round_to_uint8, ssim
from ..quantizer import codebook_usage
from .baselines import OPENCV_METHODS, inpaint_opencv, load_opencv

METRICS = ("psnr", "psnr_hole", "ssim", "l1", "l1_hole")

# An exact fill has an infinite PSNR, and one of them would make the mean of a thousand images infinite.
PSNR_LIMIT = 100.0

_MIN_SIZE = 16  # the least multiple of 8 that holds an SSIM window

_MAX_TRIES = 10_000

Bucket = tuple[float, float]

# Mean over the images of each metric, by its name.
Figures = dict[str, float]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    mask_kinds: tuple[str, ...] = MASK_KINDS
    buckets: tuple[Bucket, ...] = RATIO_BUCKETS  # ratios in [low, high) of each bucket
    size: int = 256  # of the central crop, height and width
    seed: int = 0
    limit: int | None = None  # so many images, spread evenly over the folder
    batch_size: int = 8
    opencv: bool = True  # the rows of the classical methods

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.mask_kinds if kind not in MASK_KINDS]
        if unknown or not self.mask_kinds:
            raise InvalidInputError(
                f"There is no mask kind {', '.join(unknown) or 'given'}; choose among {', '.join(MASK_KINDS)}."
            )
        if not self.buckets:
            raise InvalidInputError("There is no bucket of mask ratios given, such as 10-20.")
        for name, values in (("mask kind", self.mask_kinds), ("bucket", self.buckets)):
            if len(set(values)) < len(values):
                raise InvalidInputError(f"Each {name} can be given only once.")
        for low, high in self.buckets:
            if not 0 < low < high < 1:
                raise InvalidInputError(
                    f"A bucket of mask ratios must satisfy 0 < low < high < 100 %, not {bucket_name((low, high))}."
                )
        if self.size < _MIN_SIZE or self.size % SIZE_MULTIPLE:
            raise InvalidInputError(
                f"The size must be a multiple of {SIZE_MULTIPLE} and at least {_MIN_SIZE}, not {self.size}."
            )
        if self.limit is not None and self.limit < 1:
            raise InvalidInputError(f"The limit must be at least 1 image, not {self.limit}.")
        if self.batch_size < 1:
            raise InvalidInputError(f"The batch size must be at least 1, not {self.batch_size}.")


@dataclass(frozen=True)
class Evaluation:
    """The figures: all of them are means of per-image values, on composites rounded to 8 bits."""

    options: EvaluationOptions
    number_of_images: int
    figures: dict[
        str, dict[str, dict[str, Figures]]
    ]  # by mask kind, method, and bucket such as "10-20" or "mean" over the buckets
    hole_shares: dict[str, dict[str, float]]  # mean share of missing pixels, by mask kind and bucket
    codebooks: dict[str, dict[str, float]]  # "global" and "local": usage and perplexity on the intact crops
    versions: dict[str, str]


def bucket_name(bucket: Bucket) -> str:
    """(0.1, 0.2) as `10-20`."""
    return "-".join(f"{round(100 * end, 6):g}" for end in bucket)


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


def evaluation_crop(path: Path, size: int) -> np.ndarray:
    """The central crop of an upright image file: (size, size, 3) uint8."""
    image = open_image(path)
    if image.mode.startswith(("I", "F")):
        raise InvalidInputError(f"{path} has mode {image.mode}, more than 8 bits a channel; convert it to RGB first.")
    return center_crop(ImageOps.exif_transpose(image), size).copy()  # PIL's own pixels are read-only


def measure(output: torch.Tensor, target: torch.Tensor, missing: torch.Tensor) -> dict[str, list[float]]:
    """Every metric of every image.

    Args:
        output, target: (B, 3, H, W) in [0, 1], rounded to 8 bits.
        missing: (B, 1, H, W), 1 in the hole.

    Returns:
        B values for each name in `METRICS`.
    """
    values = {
        "psnr": psnr(output, target).clamp(max=PSNR_LIMIT),
        "psnr_hole": psnr(output, target, missing).clamp(max=PSNR_LIMIT),
        "ssim": ssim(output, target),
        "l1": mean_l1(output, target),
        "l1_hole": mean_l1(output, target, missing),
    }
    return {name: value.tolist() for name, value in values.items()}


def method_names(model: HVQInpainter, options: EvaluationOptions) -> tuple[str, ...]:
    """The rows of a table, in their order."""
    blended = ("blended",) if model.config.poisson_composite else ()
    return ("damaged", *(OPENCV_METHODS if options.opencv else ()), "coarse", *blended, "refined", "oracle")


@torch.inference_mode()
def evaluate(model: HVQInpainter, files: Sequence[Path], options: EvaluationOptions) -> Evaluation:
    """Measure `model` on image files, with one mask for each image, mask kind and bucket.

    Args:
        model: runs on the device that it is on, in eval mode, and is left in the mode that it came in.
        files: image files, such as those of `data.list_images`; the order decides which mask meets which image.

    Raises:
        InvalidInputError: a file can't be read, or OpenCV is asked for and not installed.
    """
    if options.opencv:
        load_opencv()
    chosen = [(index, files[index]) for index in spread(len(files), options.limit or len(files))]
    if not chosen:
        raise InvalidInputError("There is no image to evaluate on.")
    settings = [(kind, bucket) for kind in options.mask_kinds for bucket in options.buckets]
    names = method_names(model, options)
    values: dict[tuple[str, Bucket, str], dict[str, list[float]]] = {
        (kind, bucket, method): {metric: [] for metric in METRICS} for kind, bucket in settings for method in names
    }
    shares: dict[tuple[str, Bucket], list[float]] = {setting: [] for setting in settings}
    codes: dict[str, list[torch.Tensor]] = {"global": [], "local": []}
    device = model.vqvae.global_quantizer.codebook.device
    with evaluating(model), tqdm(total=len(chosen) * len(settings), unit="fill", disable=None) as bar:
        for start in range(0, len(chosen), options.batch_size):
            batch = chosen[start : start + options.batch_size]
            pixels = [evaluation_crop(path, options.size) for _, path in batch]
            image = torch.cat([to_tensor(crop) for crop in pixels]).to(device)
            clean = model.vqvae(image)
            codes["global"].append(clean.global_codes.flatten().to("cpu", torch.int32))
            codes["local"].append(clean.local_codes.flatten().to("cpu", torch.int32))
            oracle = clean.reconstruction.float().clamp(0, 1)
            for kind, bucket in settings:
                masks = [evaluation_mask(kind, options.size, bucket, options.seed, index) for index, _ in batch]
                shares[kind, bucket] += [float(mask.mean()) for mask in masks]
                missing = torch.from_numpy(np.stack(masks))[:, None].float().to(device)
                for method, output in _outputs(model, pixels, image, masks, missing, oracle, options).items():
                    for metric, numbers in measure(round_to_uint8(output), round_to_uint8(image), missing).items():
                        values[kind, bucket, method][metric] += numbers
                bar.update(len(batch))
    figures: dict[str, dict[str, dict[str, Figures]]] = {
        kind: {method: {} for method in names} for kind in options.mask_kinds
    }
    for (kind, bucket, method), numbers in values.items():
        figures[kind][method][bucket_name(bucket)] = {metric: _mean(numbers[metric]) for metric in METRICS}
    for methods in figures.values():
        for by_bucket in methods.values():
            by_bucket["mean"] = {metric: _mean([figure[metric] for figure in by_bucket.values()]) for metric in METRICS}
    usage = {level: codebook_usage(torch.cat(parts), model.config.num_codes) for level, parts in codes.items()}
    return Evaluation(
        options=options,
        number_of_images=len(chosen),
        figures=figures,
        hole_shares={
            kind: {bucket_name(bucket): _mean(shares[kind, bucket]) for bucket in options.buckets}
            for kind in options.mask_kinds
        },
        codebooks={level: {"usage": share, "perplexity": perplexity} for level, (share, perplexity) in usage.items()},
        versions=_versions(options.opencv),
    )


def _outputs(
    model: HVQInpainter,
    pixels: list[np.ndarray],
    image: torch.Tensor,
    masks: list[np.ndarray],
    missing: torch.Tensor,
    oracle: torch.Tensor,
    options: EvaluationOptions,
) -> dict[str, torch.Tensor]:
    """The composite (B, 3, H, W) in [0, 1] of every method, for one batch."""
    output = model(image, 1 - missing)
    results = {"damaged": torch.where(missing > 0.5, 0, image)}
    if options.opencv:
        for method in OPENCV_METHODS:
            fills = [to_tensor(inpaint_opencv(crop, mask, method)) for crop, mask in zip(pixels, masks, strict=True)]
            results[method] = torch.cat(fills).to(image.device)
    results["coarse"] = torch.where(missing > 0.5, output.coarse, image)
    if model.config.poisson_composite:
        results["blended"] = model.coarse_composite(output.coarse, results["damaged"], 1 - missing)
    results["refined"] = output.composite
    results["oracle"] = torch.where(missing > 0.5, oracle, image)
    return results


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _versions(opencv: bool) -> dict[str, str]:
    """The libraries that a figure may depend on."""
    versions = {
        "hvq_inpaint": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchmetrics": torchmetrics.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }
    if opencv:
        versions["opencv"] = load_opencv().__version__
    return versions

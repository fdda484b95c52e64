"""The rows of a table: what each method makes of a damaged photograph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..blending import harmonic_extension
from ..errors import InvalidInputError
from ..images import open_image, to_tensor
from ..inpainter import HVQInpainter
from ..vqvae import VQVAEOutput
from .baselines import OPENCV_METHODS, inpaint_opencv
from .options import Bucket, EvaluationOptions, bucket_name

METHOD_TITLES = {
    "damaged": "damaged input",
    "telea": "OpenCV Telea",
    "navier_stokes": "OpenCV Navier-Stokes",
    "harmonic": "Laplace's equation",
    "coarse": "coarse",
    "blended": "coarse, blended",
    "refined": "refined",
    "true_global": "coarse, true global codes",
    "oracle": "oracle",
}


@dataclass(frozen=True)
class Batch:
    """Some photographs with the masks of one setting."""

    indices: list[int]  # in the dataset
    pixels: list[np.ndarray]  # of each (S, S, 3) uint8
    masks: list[np.ndarray]  # of each (S, S) bool, True = missing
    kind: str
    bucket: Bucket
    image: torch.Tensor  # (B, 3, S, S) in [0, 1], the pixels on the model's device
    missing: torch.Tensor  # (B, 1, S, S), 1 = missing


@dataclass(frozen=True)
class MethodOutputs:
    """What the methods make of a batch."""

    composites: dict[str, torch.Tensor]  # by method (B, 3, S, S) in [0, 1], with the known pixels
    credibility: torch.Tensor  # of the model's global latents (B, 1, S/8, S/8) in [0, 1], 1 = credible


def method_names(model: HVQInpainter, options: EvaluationOptions) -> tuple[str, ...]:
    """The rows of a table, in their order.

    Raises:
        InvalidInputError: two folders of other methods have one name, or that of a row.
    """
    others = [Path(folder).name for folder in options.outputs]
    for name in others:
        if name in METHOD_TITLES or others.count(name) > 1:
            raise InvalidInputError(f"A row called {name} exists already; give that folder of --outputs another name.")
    blended = ("blended",) if model.config.poisson_composite else ()
    classical = OPENCV_METHODS if options.opencv else ()
    rows = ("damaged", *classical, "harmonic", *others, "coarse", *blended, "refined", "true_global", "oracle")
    if options.methods is None:
        return rows
    return tuple(row for row in rows if row in (*classical, *others, *options.methods))


def method_title(method: str) -> str:
    """What a row is called: folders of other methods by their own name."""
    return METHOD_TITLES.get(method, method)


def picture_path(folder: str | Path, kind: str, bucket: Bucket, index: int) -> Path:
    """Where the picture of image `index` lies in a folder of another method, such as `lama/brush/10-20/00003.png`."""
    return Path(folder, kind, bucket_name(bucket), f"{index:05d}.png")


def run_methods(model: HVQInpainter, batch: Batch, clean: VQVAEOutput, options: EvaluationOptions) -> MethodOutputs:
    """The composite of every method of `method_names`, in that order.

    Args:
        clean: what the VQ-VAE makes of the intact batch.
    """
    names = method_names(model, options)
    image, known, is_missing = batch.image, 1 - batch.missing, batch.missing > 0.5
    damaged = torch.where(is_missing, 0, image)
    mid, global_latents, coarse = model.vq_stage(damaged, known)

    def pasted(pictures: list[np.ndarray]) -> torch.Tensor:
        return torch.where(is_missing, torch.cat([to_tensor(picture) for picture in pictures]).to(image.device), image)

    def composite_of(method: str) -> torch.Tensor:
        if method == "damaged":
            return damaged
        if method in OPENCV_METHODS:
            crops = zip(batch.pixels, batch.masks, strict=True)
            return pasted([inpaint_opencv(crop, mask, method) for crop, mask in crops])
        if method == "harmonic":
            return harmonic_extension(damaged, known).clamp(0, 1)
        if method == "coarse":
            return torch.where(is_missing, coarse, image)
        if method == "blended":
            return model.coarse_composite(coarse, damaged, known)
        if method == "refined":
            return torch.where(is_missing, model.refine(coarse, damaged, known), image)
        if method == "true_global":
            _, _, picture = model.vqvae.decode_with_mid(clean.global_quantized, mid)
            return torch.where(is_missing, picture.float().clamp(0, 1), image)
        if method == "oracle":
            return torch.where(is_missing, clean.reconstruction.float().clamp(0, 1), image)
        (folder,) = (folder for folder in options.outputs if Path(folder).name == method)
        paths = [picture_path(folder, batch.kind, batch.bucket, index) for index in batch.indices]
        return pasted([_read_output(path, options.size) for path in paths])

    credibility = model.credibility_map(global_latents, model.vqvae.global_quantizer.codebook)
    return MethodOutputs({name: composite_of(name) for name in names}, credibility)


def check_outputs(batches: list[list[int]], options: EvaluationOptions) -> None:
    """Refuse now, and not hours later, when a picture of another method is missing."""
    for folder in options.outputs:
        for kind, bucket in options.settings:
            for index in (index for batch in batches for index in batch):
                path = picture_path(folder, kind, bucket, index)
                if not path.is_file():
                    raise InvalidInputError(f"There is no picture {path}; --export shows what is needed.")


def _read_output(path: Path, size: int) -> np.ndarray:
    picture = open_image(path)
    if picture.size != (size, size):
        raise InvalidInputError(f"{path} is {picture.width} x {picture.height} pixels; it must be {size} x {size}.")
    return np.array(picture.convert("RGB"))

"""A picture of what was measured: for each setting one photograph, so that a person can judge what the figures say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from ..data import spread
from ..images import to_pixels, to_tensor
from ..inpainter import HVQInpainter, evaluating
from ..visualize import credibility_picture, labelled_grid
from .methods import Batch, method_title, run_methods
from .options import EvaluationOptions, bucket_name
from .samples import Masks, evaluation_crop


@torch.inference_mode()
def picture_grid(model: HVQInpainter, images: Sequence[Path], options: EvaluationOptions) -> Image.Image:
    """A row for each mask kind and bucket: damaged, coarse, refined, other methods, truth, and credibility over it.

    The photographs are spread over those that `evaluate` measures, and have the same masks.
    """
    options = replace(options, methods=("damaged", "coarse", "refined"), opencv=False)
    device = model.vqvae.global_quantizer.codebook.device
    chosen = spread(len(images), options.limit or len(images))
    masks = Masks(options)
    others = [Path(folder).name for folder in options.outputs]
    shown = ["damaged", "coarse", "refined", *others]
    rows: dict[str, list[Image.Image]] = {}
    for number, (kind, bucket) in enumerate(options.settings):
        index = chosen[number * len(chosen) // len(options.settings)]
        pixels = evaluation_crop(images[index], options.size)
        mask = masks.mask(kind, bucket, index)
        image, missing = to_tensor(pixels).to(device), torch.from_numpy(mask)[None, None].float().to(device)
        with evaluating(model):
            batch = Batch([index], [pixels], [mask], kind, bucket, image, missing)
            outputs = run_methods(model, batch, model.vqvae(image), options)
        pictures = [Image.fromarray(to_pixels(outputs.composites[method][0])) for method in shown]
        truth = Image.fromarray(pixels)
        credibility = credibility_picture(outputs.credibility[0, 0].cpu().numpy(), photograph=truth)
        rows[f"{kind.replace('_', ' ')} {bucket_name(bucket)} %"] = [*pictures, truth, credibility]
    return labelled_grid(rows, [*map(method_title, shown), "truth", "credibility"])

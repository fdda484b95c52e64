"""Validation while training.

PSNR in the hole of the oracle, the coarse and the refined result, and a grid to look at.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ..data import Sample
from ..distributed import all_reduce_sum
from ..inpainter import HVQInpainter, evaluating
from ..metrics import psnr, round_to_uint8
from ..quantizer import usage_of_counts

GRID_COLUMNS = ("damaged", "coarse", "refined", "composite", "oracle", "truth", "credibility")


@torch.inference_mode()
def validate(model: HVQInpainter, samples: list[Sample], device: torch.device, batch_size: int = 8) -> dict[str, float]:
    """Means over the samples of all processes; all of them call it.

    PSNR in the hole, in dB, of `oracle`, `coarse`, `refined` and, if the model blends, of the refiner's input
    `blended`; usage and perplexity of both codebooks.

    The model is left in the mode that it came in.

    Args:
        samples: this process's share, which may be empty.
    """
    names = ["oracle", "coarse", "refined", "oracle_whole"] + ["blended"] * model.config.poisson_composite
    sums = torch.zeros(len(names) + 1, device=device)  # and the number of samples
    counts = torch.zeros(2, model.config.num_codes, dtype=torch.int64, device=device)
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        image = torch.stack([sample["image"] for sample in batch]).to(device)
        known = torch.stack([sample["known"] for sample in batch]).to(device)
        with evaluating(model):
            output, clean = model(image, known), model.vqvae(image)
        oracle = clean.reconstruction.float().clamp(0, 1)
        pictures = {"oracle": oracle, "coarse": output.coarse, "refined": output.refined}
        if model.config.poisson_composite:
            pictures["blended"] = model.coarse_composite(output.coarse, image * known, known)
        values = {name: psnr(round_to_uint8(picture), image, 1 - known) for name, picture in pictures.items()}
        values["oracle_whole"] = psnr(round_to_uint8(oracle), image)
        sums += torch.stack([*(values[name].sum() for name in names), sums.new_tensor(len(batch))])
        for level, codes in enumerate((clean.global_codes, clean.local_codes)):
            counts[level] += torch.bincount(codes.flatten(), minlength=model.config.num_codes)
    *totals, number = all_reduce_sum(sums).tolist()
    results = {f"validation/{name}_psnr": total / number for name, total in zip(names, totals, strict=True)}
    for level, of_level in zip(("global", "local"), all_reduce_sum(counts), strict=True):
        usage, perplexity = usage_of_counts(of_level)
        results[f"validation/{level}_usage"], results[f"validation/{level}_perplexity"] = usage, perplexity
    return results


@torch.inference_mode()
def sample_grid(model: HVQInpainter, samples: list[Sample], device: torch.device) -> Image.Image:
    """A row for each sample, with the pictures of `GRID_COLUMNS`."""
    image = torch.stack([sample["image"] for sample in samples]).to(device)
    known = torch.stack([sample["known"] for sample in samples]).to(device)
    with evaluating(model):
        output, oracle = model(image, known), model.reconstruct(image)
    credibility = torch.nn.functional.interpolate(output.credibility, image.shape[-2:], mode="nearest").expand_as(image)
    columns = [image * known, output.coarse, output.refined, output.composite, oracle, image, credibility]
    grid = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)  # (3, B * H, 7 * W)
    return Image.fromarray((grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8))

"""Validation while training.

PSNR in the hole of the oracle, the coarse and the refined result, and a grid to look at.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from PIL import Image

from ..data import Sample
from ..inpainter import HVQInpainter, evaluating
from ..metrics import psnr, round_to_uint8
from ..quantizer import codebook_usage


@torch.inference_mode()
def validate(model: HVQInpainter, samples: list[Sample], device: torch.device, batch_size: int = 8) -> dict[str, float]:
    """Means over the samples.

    PSNR in the hole, in dB, of `oracle`, `coarse`, `refined` and, if the model blends, of the refiner's input
    `blended`; usage and perplexity of both codebooks.

    The model is left in the mode that it came in.
    """
    values: dict[str, list[torch.Tensor]] = defaultdict(list)
    codes: dict[str, list[torch.Tensor]] = {"global": [], "local": []}
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
        for name, picture in pictures.items():
            values[name].append(psnr(round_to_uint8(picture), image, 1 - known))
        values["oracle_whole"].append(psnr(round_to_uint8(oracle), image))
        codes["global"].append(clean.global_codes.flatten())
        codes["local"].append(clean.local_codes.flatten())
    results = {f"validation/{name}_psnr": float(torch.cat(parts).mean()) for name, parts in values.items()}
    for level, parts in codes.items():
        usage, perplexity = codebook_usage(torch.cat(parts), model.config.num_codes)
        results[f"validation/{level}_usage"], results[f"validation/{level}_perplexity"] = usage, perplexity
    return results


@torch.inference_mode()
def sample_grid(model: HVQInpainter, samples: list[Sample], device: torch.device) -> Image.Image:
    """A row for each sample: damaged, coarse, refined, composite, oracle, truth, credibility."""
    image = torch.stack([sample["image"] for sample in samples]).to(device)
    known = torch.stack([sample["known"] for sample in samples]).to(device)
    with evaluating(model):
        output, oracle = model(image, known), model.reconstruct(image)
    credibility = torch.nn.functional.interpolate(output.credibility, image.shape[-2:], mode="nearest").expand_as(image)
    columns = [image * known, output.coarse, output.refined, output.composite, oracle, image, credibility]
    grid = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)  # (3, B * H, 7 * W)
    return Image.fromarray((grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy().astype(np.uint8))

"""The model in hub/model: small enough, of its preset, and better than a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from skimage import data

from hvq_inpaint import HVQConfig, HVQInpainter
from hvq_inpaint.blending import poisson_composite
from hvq_inpaint.images import to_tensor
from hvq_inpaint.masks import make_mask

FOLDER = Path(__file__).parent.parent / "hub" / "model"


@pytest.fixture(scope="module")
def bundled():
    return HVQInpainter.from_pretrained(FOLDER)


def test_it_is_of_its_preset_and_at_most_35_megabytes(bundled):
    assert bundled.config == HVQConfig.preset("small")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 35e6
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in list(file.keys())}
    assert kinds["vqvae.global_quantizer.codebook"] == kinds["credibility_map.quantiles"] == "F32"
    assert kinds["refiner.encoder.0.weight"] == "F16"


def test_its_card_tells_what_the_weights_may_be_used_for():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "non-commercial" in card and "license_name: research-non-commercial" in card


@pytest.mark.parametrize("kind", ["random_walk", "brush"])
def test_its_fill_is_far_better_than_the_mean_colour(bundled, kind):
    pixels = data.coffee()[60:316, 150:406]
    mask = make_mask(kind, 256, 256, 0.3, seed=1)
    result = bundled.inpaint(pixels, mask)

    def psnr_in_the_hole(filled: np.ndarray) -> float:
        return -10 * np.log10(np.mean((filled[mask] / 255.0 - pixels[mask] / 255.0) ** 2))

    mean_colour = np.broadcast_to(pixels[~mask].mean(axis=0), pixels.shape)
    coarse = np.array(result.stages["coarse"])
    image, known = to_tensor(pixels), torch.from_numpy(~mask)[None, None].float()
    blended = poisson_composite(to_tensor(coarse), image, known)[0].permute(1, 2, 0).numpy() * 255
    refined = psnr_in_the_hole(np.array(result.image))
    assert refined > psnr_in_the_hole(mean_colour) + 6
    assert refined > psnr_in_the_hole(coarse)
    assert refined > psnr_in_the_hole(blended)
    assert np.array_equal(np.array(result.image)[~mask], pixels[~mask])


def test_its_credibility_is_calibrated_on_intact_images(bundled):
    crop = torch.from_numpy(data.chelsea()[:256, :256].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        _, latents = bundled.vqvae.encoder_a1(crop)
        credibility = bundled.credibility_map(latents, bundled.vqvae.global_quantizer.codebook)
    # On clean latents of the training set it would be uniform, with a mean of a half.
    assert 0.25 < credibility.mean() < 0.75

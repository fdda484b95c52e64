"""Metrics against independent references: scikit-image, NumPy and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hvq_inpaint.masks import random_walk_mask
from hvq_inpaint.metrics import mean_l1, psnr, round_to_uint8, ssim


def pictures(number: int = 3, height: int = 40, width: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets and outputs that differ more from one image of the batch to the next: (B, 3, H, W), rounded to 8 bits."""
    generator = torch.Generator().manual_seed(0)
    target = torch.nn.functional.avg_pool2d(
        torch.rand(number, 3, height + 4, width + 4, generator=generator), 5, stride=1
    )
    strength = torch.linspace(0.02, 0.2, number).reshape(-1, 1, 1, 1)
    return round_to_uint8(target + strength * torch.randn(target.shape, generator=generator)), round_to_uint8(target)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def skimage_ssim(output: np.ndarray, target: np.ndarray) -> float:
    return structural_similarity(
        output, target, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2
    )


def test_psnr_equals_scikit_image_for_each_image():
    output, target = pictures()
    expected = [
        peak_signal_noise_ratio(as_array(t), as_array(o), data_range=1) for o, t in zip(output, target, strict=True)
    ]
    assert psnr(output, target).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_scikit_image_for_each_image():
    output, target = pictures()
    expected = [skimage_ssim(as_array(o), as_array(t)) for o, t in zip(output, target, strict=True)]
    assert ssim(output, target).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_ignores_windows_that_leave_the_image():
    """Only the centres at least five pixels from every border count.

    A change that no such window weighs much is not seen.
    """
    _, target = pictures(1, 11, 11)
    output = target.clone()
    output[..., 5, 5] = 1 - output[..., 5, 5]
    assert ssim(output, target).item() == pytest.approx(
        skimage_ssim(as_array(output[0]), as_array(target[0])), abs=1e-5
    )
    corner = target.clone()
    corner[..., 0, 0] = 1 - corner[..., 0, 0]
    assert ssim(corner, target).item() > 0.999 > ssim(output, target).item()


def test_torchmetrics_mean_counts_mirrored_borders():
    """Why `ssim` does not take torchmetrics' mean.

    It is the SSIM of the images extended by five mirrored pixels on each side.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    output, target = pictures(1)
    theirs = structural_similarity_index_measure(output, target, sigma=1.5, data_range=1.0).item()
    extended = [np.pad(as_array(image[0]), ((5, 5), (5, 5), (0, 0)), mode="reflect") for image in (output, target)]
    assert theirs == pytest.approx(skimage_ssim(*extended), abs=1e-5)
    assert abs(theirs - ssim(output, target).item()) > 1e-5


def test_l1_equals_numpy_whole_and_in_the_hole():
    output, target = pictures()
    missing = np.stack([random_walk_mask(40, 56, 0.3, seed) for seed in range(3)])
    holes = torch.from_numpy(missing)[:, None].float()
    errors = [np.abs(as_array(o) - as_array(t)) for o, t in zip(output, target, strict=True)]
    assert mean_l1(output, target).tolist() == pytest.approx([error.mean() for error in errors], abs=1e-7)
    assert mean_l1(output, target, holes).tolist() == pytest.approx(
        [error[hole].mean() for error, hole in zip(errors, missing, strict=True)], abs=1e-7
    )


def test_hole_psnr_of_a_composite_follows_from_the_whole():
    output, target = pictures()
    missing = torch.from_numpy(np.stack([random_walk_mask(40, 56, ratio, 0) for ratio in (0.1, 0.3, 0.6)]))[
        :, None
    ].float()
    composite = torch.where(missing > 0.5, output, target)
    share = missing.mean(dim=(1, 2, 3))
    expected = psnr(composite, target) + 10 * torch.log10(share)
    assert psnr(composite, target, missing).tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_hand_computed_case():
    """A quarter of the pixels off by 51 / 255 = 0.2: MSE 0.04 in the hole, 0.01 over the image."""
    target = torch.full((1, 3, 16, 16), 102 / 255)
    missing = torch.zeros(1, 1, 16, 16)
    missing[..., :8, :8] = 1
    output = target + 0.2 * missing
    assert psnr(output, target).item() == pytest.approx(20, abs=1e-4)
    assert psnr(output, target, missing).item() == pytest.approx(-20 * math.log10(0.2), abs=1e-4)
    assert mean_l1(output, target).item() == pytest.approx(0.05, abs=1e-6)
    assert mean_l1(output, target, missing).item() == pytest.approx(0.2, abs=1e-6)


def test_equal_images():
    _, target = pictures()
    assert psnr(target, target).tolist() == [math.inf] * 3
    assert ssim(target, target).tolist() == pytest.approx([1.0] * 3)
    assert mean_l1(target, target).tolist() == [0.0] * 3


def test_rounding_is_that_of_a_saved_picture():
    image = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.3])
    assert (round_to_uint8(image) * 255).tolist() == pytest.approx([0, 0, 0, 1, 255, 255], abs=1e-4)
    stored = torch.arange(256) / 255
    assert torch.equal(round_to_uint8(stored), stored)

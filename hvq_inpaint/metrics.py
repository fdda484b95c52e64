"""Metrics of one image or a batch, each value its own: PSNR, SSIM and mean L1, over the image or in the hole only.

All of them take float images in [0, 1] that were rounded to 8 bits (`round_to_uint8`), as a saved picture would be.
"""

from __future__ import annotations

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

_SSIM_WINDOW = 11  # pixels


def round_to_uint8(image: torch.Tensor) -> torch.Tensor:
    """What is left of an image in [0, 1] once it is stored with 8 bits a channel."""
    return (image.clamp(0, 1) * 255).round() / 255


def psnr(output: torch.Tensor, target: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
    """PSNR in dB with a peak of 1, for each image of a batch.

    Args:
        output, target: (B, 3, H, W) in [0, 1].
        missing: (B, 1, H, W), 1 in the hole: only its pixels count. None: the whole image.

    Returns:
        (B,); infinite where the images are equal.
    """
    return -10 * torch.log10(_mean((output - target).square(), missing))


def mean_l1(output: torch.Tensor, target: torch.Tensor, missing: torch.Tensor | None = None) -> torch.Tensor:
    """Mean absolute error in [0, 1], for each image of a batch (B,); arguments as for `psnr`."""
    return _mean((output - target).abs(), missing)


def ssim(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """SSIM of Wang et al. (2004) with a Gaussian window of 11 pixels, sigma 1.5, data range 1, mean over RGB.

    Only windows that lie inside the image count, as in Wang's own code and in scikit-image's `structural_similarity`
    with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`. torchmetrics' own mean also counts the windows
    around the five pixels next to each border, which it fills up with mirrored pixels: another figure, so its map is
    cropped here.

    Args:
        output, target: (B, 3, H, W) in [0, 1], H and W at least 11.

    Returns:
        (B,).
    """
    _, similarity = structural_similarity_index_measure(
        output, target, sigma=1.5, kernel_size=_SSIM_WINDOW, data_range=1.0, reduction="none", return_full_image=True
    )
    border = _SSIM_WINDOW // 2
    return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


def _mean(error: torch.Tensor, missing: torch.Tensor | None) -> torch.Tensor:
    # In float64, which Apple's GPUs do not have.
    error = (error.cpu() if error.device.type == "mps" else error).double()
    if missing is None:
        return error.mean(dim=(1, 2, 3))
    weight = missing.to(error).expand_as(error)
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))

"""Metrics of one image or a batch, each value its own: PSNR, SSIM and mean L1, over the image or in the hole only, and
LPIPS; and of a set of images: the Fréchet distance of their features, FID with Inception's.

All of them take float images in [0, 1] that were rounded to 8 bits (`round_to_uint8`), as a saved picture would be.

The feature networks are no part of this project: they are read from a safetensors file, or downloaded by the library
that they come with.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from .errors import InvalidInputError

SSIM_WINDOW = 11  # pixels

INCEPTION_DIM = 2048  # of the features that FID is made of: the pool before Inception's last layer


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
        output, target, sigma=1.5, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none", return_full_image=True
    )
    border = SSIM_WINDOW // 2
    return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


class LPIPS(nn.Module):
    """LPIPS 0.1 (Zhang et al. 2018) on AlexNet, with the linear heads of the package lpips.

    Args:
        trunk: the convolutions of torchvision's AlexNet by their names, `features.0.weight` and so on; others are
            ignored. None: torchvision's own download.

    Raises:
        InvalidInputError: the download failed, or a tensor is missing or of another shape.
    """

    def __init__(self, trunk: Mapping[str, torch.Tensor] | None = None) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError:
            raise InvalidInputError("LPIPS needs the package lpips: pip install lpips.") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # lpips calls torchvision by parameters that it has given up
                self.network = lpips.LPIPS(net="alex", pnet_rand=trunk is not None, verbose=False)
        except OSError as error:  # URLError is one
            raise InvalidInputError(
                f"torchvision can't download the AlexNet of LPIPS ({error}): "
                "give its convolutions as a safetensors file with --lpips-weights."
            ) from None
        if trunk is not None:
            for name, parameter in self.network.net.named_parameters():
                key = f"features.{name.partition('.')[2]}"  # lpips calls torchvision's features.3.bias slice2.3.bias
                if key not in trunk or trunk[key].shape != parameter.shape:
                    raise InvalidInputError(
                        f"The AlexNet weights lack a tensor {key} of shape {tuple(parameter.shape)}."
                    )
                parameter.data.copy_(trunk[key])
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_safetensors(cls, path: str | Path) -> LPIPS:
        """LPIPS with the AlexNet of a safetensors file with torchvision's key names."""
        if not Path(path).is_file():
            raise InvalidInputError(f"There is no file {path} with AlexNet weights.")
        try:
            return cls(load_file(path))
        except SafetensorError as error:
            raise InvalidInputError(f"{path} is not a readable safetensors file: {error}.") from None

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The distance of each image (B,); `output` and `target` (B, 3, H, W) in [0, 1], at least 32 x 32."""
        return self.network(output * 2 - 1, target * 2 - 1).flatten()

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """AlexNet's last convolution after its ReLU, mean over the pixels: (B, 3, H, W) in [0, 1] to (B, 256)."""
        return self.network.net(self.network.scaling_layer(image * 2 - 1)).relu5.mean(dim=(2, 3))


def load_lpips(path: str | None) -> LPIPS:
    """LPIPS with the AlexNet of a safetensors file, or with torchvision's where no file is given."""
    return LPIPS.from_safetensors(path) if path else LPIPS()


class InceptionFeatures(nn.Module):
    """The features of FID (Heusel et al. 2017): torch-fidelity's Inception, which downloads its weights itself.

    Raises:
        InvalidInputError: torch-fidelity is not installed, or the download failed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            self.network = FrechetInceptionDistance(feature=INCEPTION_DIM).inception
        except ModuleNotFoundError:
            raise InvalidInputError("FID needs the package torch-fidelity: pip install torch-fidelity.") from None
        except OSError as error:  # URLError is one
            raise InvalidInputError(f"torch-fidelity can't download its Inception ({error}).") from None

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 2048)."""
        return self.network((image * 255).round().byte())


class FrechetDistance:
    """The Fréchet distance between the Gaussians of two sets of features, by torchmetrics.

    Called FID only with the features of Inception. It is biased upwards on few images: give their number beside it.

    Args:
        true: features (N, D) of the true images, N at least 2.
    """

    def __init__(self, true: np.ndarray) -> None:
        given = nn.Identity()
        given.num_features = true.shape[1]  # what torchmetrics asks a feature network for
        # The sets are whole on the process that asks: torchmetrics must not wait for the others to add theirs.
        self.metric = FrechetInceptionDistance(feature=given, reset_real_features=False, sync_on_compute=False)
        self.is_finite = bool(np.isfinite(true).all())
        self.metric.update(torch.from_numpy(true), real=True)

    def __call__(self, features: np.ndarray) -> float:
        """The distance of the true images from others, of features (M, D), M at least 2; NaN if any is not finite."""
        if not (self.is_finite and np.isfinite(features).all()):  # on which LAPACK may crash
            return math.nan
        self.metric.update(torch.from_numpy(features), real=False)
        distance = float(self.metric.compute())
        self.metric.reset()  # of these features; the true ones stay
        return max(distance, 0.0)  # rounding leaves some -1e-6 between equal sets


def _mean(error: torch.Tensor, missing: torch.Tensor | None) -> torch.Tensor:
    # In float64, which Apple's GPUs do not have.
    error = (error.cpu() if error.device.type == "mps" else error).double()
    if missing is None:
        return error.mean(dim=(1, 2, 3))
    weight = missing.to(error).expand_as(error)
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))


def border_step(image: np.ndarray, mask: np.ndarray) -> tuple[float, int]:
    """The step of colour across the border of a mask: how visible a seam is, beside that of the true image.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, True = filled.

    Returns:
        The sum of |difference| over all pairs of a known pixel and a filled one beside, above or below it, as a mean
        over the channels in [0, 255]; and the number of these pairs.
    """
    values, total, number = image.astype(np.float64), 0.0, 0
    for axis in (0, 1):
        crosses = np.diff(mask.astype(np.int8), axis=axis) != 0
        total += float(np.abs(np.diff(values, axis=axis)).mean(axis=2)[crosses].sum())
        number += int(crosses.sum())
    return total, number

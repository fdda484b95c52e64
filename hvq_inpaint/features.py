"""VGG-19 features for the losses that need any, such as Eq. (13) and (15): relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.

The weights are not part of this project: they come from a safetensors file or from torchvision's own download.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .errors import InvalidInputError

# torchvision's numbering of vgg19().features up to conv5_1, as (index, input channels, output channels).
_CONVOLUTIONS = (
    (0, 3, 64),
    (2, 64, 64),
    (5, 64, 128),
    (7, 128, 128),
    (10, 128, 256),
    (12, 256, 256),
    (14, 256, 256),
    (16, 256, 256),
    (19, 256, 512),
    (21, 512, 512),
    (23, 512, 512),
    (25, 512, 512),
    (28, 512, 512),
)
_TAPS = (0, 5, 10, 19, 28)  # conv1_1 .. conv5_1: the first convolution after each pooling

# What each source's weights expect of RGB in [0, 1]: (x * range - mean) / std.
_CONVENTIONS = {
    "oxford": (255.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
    "torchvision": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class VGG19Features(nn.Module):
    """A frozen VGG-19 up to relu5_1, whose maps have a mean activation of 1 on the images given to `calibrate`.

    Different sources of the weights have activations of very different scale; so scaled, a loss preset means the same.

    Args:
        state: tensors named `features.N.weight` and `features.N.bias`, as in torchvision; others are ignored.
        convention: `oxford` for the original weights (RGB in 0..255 minus the mean), `torchvision` for its own.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], convention: str) -> None:
        super().__init__()
        value_range, mean, std = _CONVENTIONS[convention]
        self.value_range = value_range
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        for index, in_channels, out_channels in _CONVOLUTIONS:
            convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            for name, parameter in convolution.named_parameters():
                key = f"features.{index}.{name}"
                if key not in state or state[key].shape != parameter.shape:
                    raise InvalidInputError(
                        f"The VGG-19 weights lack a tensor {key} of shape {tuple(parameter.shape)}."
                    )
                parameter.data.copy_(state[key])
            self.convolutions[str(index)] = convolution
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_safetensors(cls, path: str | Path) -> VGG19Features:
        """The Oxford weights from a safetensors file with torchvision's key names."""
        if not Path(path).is_file():
            raise InvalidInputError(f"There is no file {path} with VGG-19 weights.")
        try:
            return cls(load_file(path), "oxford")
        except SafetensorError as error:
            raise InvalidInputError(f"{path} is not a readable safetensors file: {error}.") from None

    @classmethod
    def from_torchvision(cls) -> VGG19Features:
        """torchvision's ImageNet weights, downloaded by torchvision itself on first use (550 MB)."""
        advice = "give a safetensors file with --vgg-weights, or choose the loss preset l1, which needs none"
        try:
            from torchvision.models import VGG19_Weights, vgg19
        except ImportError:
            raise InvalidInputError(
                f"The perceptual and style losses need VGG-19, and torchvision is not installed: {advice}."
            ) from None
        try:
            return cls(vgg19(weights=VGG19_Weights.IMAGENET1K_V1).state_dict(), "torchvision")
        except URLError as error:
            raise InvalidInputError(
                f"torchvision can't download the VGG-19 weights ({error.reason}): {advice}."
            ) from None

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """`image` (B, 3, H, W) in [0, 1] to five maps (B, 64, H, W) .. (B, 512, H/16, W/16)."""
        x = (image * self.value_range - self.mean) / self.std
        maps = []
        for index, _, _ in _CONVOLUTIONS:
            if index in _TAPS[1:]:
                x = F.max_pool2d(x, 2)
            x = F.relu(self.convolutions[str(index)](x))
            if index in _TAPS:
                maps.append(x)
        return maps

    @torch.no_grad()
    def calibrate(self, images: torch.Tensor) -> None:
        """Divide each map by its mean activation on intact `images` (N, 3, H, W).

        Convolutions, ReLU and max pooling carry a positive factor through, so the weights before a map take the
        division and those after it the multiplication, and no map has to be divided.
        """
        totals = sum(torch.stack([map_.float().mean() * len(part) for map_ in self(part)]) for part in images.split(8))
        means = dict(zip(_TAPS, (totals / len(images)).tolist(), strict=True))
        scale = 1.0  # of what the convolution is given
        for index, _, _ in _CONVOLUTIONS:
            convolution = self.convolutions[str(index)]
            scaled = 1 / means[index] if index in means else scale
            convolution.weight.mul_(scaled / scale)
            convolution.bias.mul_(scaled)
            scale = scaled


def load_vgg19(path: str | None) -> VGG19Features:
    """VGG-19 from a safetensors file, or from torchvision where no file is given."""
    return VGG19Features.from_safetensors(path) if path else VGG19Features.from_torchvision()

"""The multi-dilation-rate inpainting module (Section 3.3, Figure 2b and 4)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

from .config import HVQConfig
from .execution import channels_last, with_fitting_weights
from .pretrained import PretrainedModel


class MultiDilationBlock(nn.Module):
    """H(X) = X + conv(R(X)), R(X) the concatenation of dilated convolutions of X (Figure 4).

    There are always four branches of a quarter of the channels; with fewer than four dilation rates they share the
    rates, so a single-rate block of Table 6 has the same width and the same number of weights.
    """

    def __init__(self, channels: int, dilation_rates: tuple[int, ...]) -> None:
        super().__init__()
        branches = max(4, len(dilation_rates))
        rates = [dilation_rates[i * len(dilation_rates) // branches] for i in range(branches)]
        widths = [channels // branches + (i < channels % branches) for i in range(branches)]
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=rate, dilation=rate)
            for width, rate in zip(widths, rates, strict=True)
        )
        self.merge = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.merge(torch.cat([F.relu(branch(x)) for branch in self.branches], dim=1))


class MultiDilationRefiner(PretrainedModel):
    """Refines the composite of the VQ stage's result and the known pixels.

    Args:
        config: an `HVQConfig`, or its fields as a dict; the preset `paper` if not given.

    Attributes:
        gradient_checkpointing: keep no activations of the blocks in training but compute them again for the gradient.
    """

    architecture = "MultiDilationRefiner"
    prefix = "refiner."

    def __init__(self, config: HVQConfig | dict[str, Any] | None = None) -> None:
        super().__init__(config)
        config = self.config
        full, half, quarter = config.refiner_channels
        self.encoder = nn.ModuleList(
            (
                nn.Conv2d(4, full, 7, padding=3),  # (B, 64, H, W)
                nn.Conv2d(full, half, 4, stride=2, padding=1),  # (B, 128, H/2, W/2)
                nn.Conv2d(half, quarter, 4, stride=2, padding=1),  # (B, 256, H/4, W/4)
            )
        )
        self.blocks = nn.Sequential(
            *(MultiDilationBlock(quarter, config.dilation_rates) for _ in range(config.refiner_blocks))
        )
        self.gradient_checkpointing = False
        self.skips = config.refiner_skips
        self.decoder = nn.ModuleList(
            (
                nn.Conv2d(quarter + half * self.skips, half, 3, padding=1),  # (B, 128, H/2, W/2)
                nn.Conv2d(half + full * self.skips, full, 3, padding=1),  # (B, 64, H, W)
            )
        )
        self.output = nn.Conv2d(full, 3, 3, padding=1)
        self.residual = config.refiner_residual
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Keep the variance of what passes through (He et al. 2015).

        PyTorch's own start lets it fall to a sixth with every layer, and what reaches the last one is mostly biases.
        """
        if self.output.weight.is_meta:  # only its shape is asked for
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            block.merge.weight.mul_(len(self.blocks) ** -0.5)  # the blocks add up
        if self.residual:
            nn.init.zeros_(self.output.weight)  # an untrained refiner gives back what it gets

    @with_fitting_weights
    def forward(self, coarse_composite: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """I_out of the paper.

        Args:
            coarse_composite: (B, 3, H, W), known pixels and, in the hole, the VQ stage's result, pasted or blended;
                H and W multiples of 4.
            known: (B, 1, H, W), 1 = known, 0 = missing.

        Returns:
            (B, 3, H, W); clamped to [0, 1] in eval mode only, so that training keeps its gradient.
        """
        x = channels_last(torch.cat([coarse_composite, 1 - known], dim=1))
        features = []
        for convolution in self.encoder:
            x = F.relu(convolution(x))
            features.append(x)
        if self.gradient_checkpointing and self.training:
            x = checkpoint_sequential(self.blocks, len(self.blocks), x, use_reentrant=False)
        else:
            x = self.blocks(x)
        for convolution, skip in zip(self.decoder, (features[1], features[0]), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.relu(convolution(torch.cat([x, skip], dim=1) if self.skips else x))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 is coarser than the grey levels of a picture
            refined = self.output(x.float()).contiguous()
        if self.residual:
            # In the hole only: asked to be zero on the known pixels as well, all of it soon is.
            refined = coarse_composite + (1 - known) * refined
        return refined if self.training else refined.clamp(0, 1)

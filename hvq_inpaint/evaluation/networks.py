"""The feature networks that some metrics need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ..errors import InvalidInputError
from ..metrics import LPIPS, InceptionFeatures, load_lpips
from .options import METRICS, PIXEL_METRICS, SET_METRICS


@dataclass(frozen=True)
class MetricNetworks:
    """The feature networks at hand, and why others are not."""

    lpips: LPIPS | None = None
    inception: InceptionFeatures | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # the reason by metric

    def to(self, device: torch.device) -> None:
        """Move the networks to a device."""
        for network in (self.lpips, self.inception):
            if network is not None:
                network.to(device)

    def features_of(self, metric: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the Fréchet distance `metric` is made of: (B, 3, H, W) in [0, 1] to (B, D)."""
        return {"fid": self.inception, "fd": self.lpips}[metric].features

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that can be measured with these networks."""
        of_networks = {"lpips": self.lpips, "fd": self.lpips, "fid": self.inception}
        return tuple(name for name in METRICS if name in PIXEL_METRICS or of_networks[name] is not None)

    def metrics_on(self, number_of_images: int) -> tuple[str, ...]:
        """All that can be measured with these networks on so many images; why others can't be is put in `left_out`."""
        if number_of_images >= 2:
            return self.metrics
        self.left_out.update(dict.fromkeys(SET_METRICS, "It needs at least 2 images."))
        return tuple(name for name in self.metrics if name not in SET_METRICS)


def load_networks(
    metrics: Sequence[str] | None, lpips_weights: str | None, device: torch.device | str = "cpu"
) -> MetricNetworks:
    """The networks that `metrics` need.

    Args:
        metrics: None: whatever can be had; what can't be is told in `left_out`.
        lpips_weights: a safetensors file with AlexNet's convolutions; None: torchvision's own download.

    Raises:
        InvalidInputError: a network that was asked for, by its metric or its file, can't be had.
    """
    left_out: dict[str, str] = {}

    def load(names: Sequence[str], make: Callable[[], nn.Module]) -> nn.Module | None:
        if metrics is not None and not set(names) & set(metrics):
            return None
        try:
            return make().to(device)
        except InvalidInputError as error:
            if metrics is not None or (lpips_weights and "lpips" in names):
                raise
            left_out.update(dict.fromkeys(names, str(error)))
            return None

    lpips = load(("lpips", "fd"), lambda: load_lpips(lpips_weights))
    return MetricNetworks(lpips, load(("fid",), InceptionFeatures), left_out)

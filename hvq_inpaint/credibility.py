"""Vector credibility: which predicted vectors lie too far from those of intact images, Eq. (7) to (9)."""

from __future__ import annotations

import torch
from torch import nn

from .distributed import all_gather_rows, all_reduce_max, all_reduce_sum
from .errors import InvalidInputError
from .quantizer import nearest_codes, to_vectors

# Quantiles of the clean distances that a model keeps, at equal steps from 0 to 1.
NUM_QUANTILES = 257


def code_distances(vectors: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For vectors (N, D) and a codebook (K, D): the L2 distance to the nearest code (N,) and its index (N,)."""
    codes = nearest_codes(vectors, codebook)
    return torch.linalg.vector_norm(vectors - codebook[codes], dim=1), codes


def max_distance(distances: torch.Tensor, quantile: float = 1.0) -> torch.Tensor:
    """MaxDist of Eq. (8) over the distances (N,) of all processes, or a lower quantile of them (linearly
    interpolated).
    """
    if quantile == 1:  # one number of each process is enough
        return all_reduce_max(distances.max())
    # Not torch.quantile, which takes 16 million values at most: those of 512 processes with 32 images each.
    ordered = all_gather_rows(distances).sort().values
    position = quantile * (len(ordered) - 1)
    low = int(position)
    return torch.lerp(ordered[low], ordered[min(low + 1, len(ordered) - 1)], position - low)


@torch.no_grad()
def credibility_weights(
    clean: torch.Tensor, damaged: torch.Tensor, codebook: torch.Tensor, quantile: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """VW of Eq. (9): 1 where a predicted vector is farther from the clean batch's codes than any clean vector.

    The batch is the global one, over all processes. The nearest vector of the set Q1 is the nearest among the codes
    *used* by the clean batch, so no table larger than (N, K) is built.

    Args:
        clean: global latents of the intact images, E1F1 (B, D, H, W).
        damaged: those predicted from the damaged ones, E1F2 (B, D, H, W).
        codebook: (K, D).
        quantile: which quantile of the clean distances is MaxDist; 1.0 is the paper's maximum.

    Returns:
        `weights` (B, 1, H, W), 1 = not credible, and `max_dist`, a scalar, Eq. (8).
    """
    if not 0 < quantile <= 1:
        raise InvalidInputError(f"The quantile must lie in (0, 1], not {quantile}.")
    codebook = codebook.float()
    distances, codes = code_distances(to_vectors(clean), codebook)  # Eq. (7)
    max_dist = max_distance(distances, quantile)  # Eq. (8)
    used = all_reduce_sum(torch.bincount(codes, minlength=len(codebook))) > 0
    damaged_distances, _ = code_distances(to_vectors(damaged), codebook[used])
    batch, _, height, width = damaged.shape
    weights = (damaged_distances > max_dist).to(damaged.dtype).reshape(batch, 1, height, width)  # Eq. (9)
    return weights, max_dist


class CredibilityMap(nn.Module):
    """Credibility at inference, where there is no clean batch: the model keeps the distances of the clean images.

    Buffers:
        quantiles (257,): quantiles of the distances between clean global latents and their codes, at equal steps from
            0 to 1; the last one is the calibrated MaxDist. All zero until `calibrate` was called, and then only a
            vector that equals a code is credible.
    """

    quantiles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.zeros(NUM_QUANTILES))

    @torch.no_grad()
    def calibrate(self, distances: torch.Tensor) -> None:
        """Keep the quantiles of the clean distances (N,) of all processes."""
        ordered = all_gather_rows(distances.float()).sort().values
        positions = torch.linspace(0, len(ordered) - 1, NUM_QUANTILES, device=ordered.device).round().long()
        self.quantiles.copy_(ordered[positions])

    @torch.no_grad()
    def forward(self, latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        """The share of clean distances that are larger than each vector's distance to its nearest code.

        Args:
            latents: (B, D, H, W).
            codebook: (K, D).

        Returns:
            (B, 1, H, W) float32 in [0, 1], 1 = credible.
        """
        distances, _ = code_distances(to_vectors(latents), codebook.float())
        last = NUM_QUANTILES - 1
        above = torch.searchsorted(self.quantiles, distances)  # the first quantile that is not smaller
        low, high = self.quantiles[(above - 1).clamp(0, last)], self.quantiles[above.clamp(0, last)]
        part = ((distances - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        smaller = (above - 1 + part).clamp(0, last) / last
        batch, _, height, width = latents.shape
        return (1 - smaller).reshape(batch, 1, height, width)

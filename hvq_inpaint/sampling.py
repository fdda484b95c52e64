"""Other plausible codes than the nearest ones, for several answers to one hole, in the line of Peng et al. (2021),
Generating diverse structure for image inpainting with hierarchical VQ-VAE.
"""

from __future__ import annotations

import torch

from .quantizer import to_vectors


def sample_codes(
    latents: torch.Tensor,
    codebook: torch.Tensor,
    variance: torch.Tensor,
    doubtful: torch.Tensor,
    codes: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Codes near the predicted latents, the likelier the nearer.

    A code's probability is proportional to exp(-|v - e|^2 / variance), so that the order of Peng et al.'s k-th nearest
    codes is kept, and a latent that lies among several codes has several answers.

    Args:
        latents: (B, D, h, w), as predicted.
        codebook: (K, D).
        variance: scalar, the squared distance on whose scale the probability falls.
        doubtful: (B, h, w) bool, where to draw.
        codes: (B, h, w) int64, kept elsewhere.
        generator: of any device.

    Returns:
        (B, h, w) int64.
    """
    vectors = to_vectors(latents)[doubtful.flatten()]  # (N, D)
    squared = torch.cdist(vectors, codebook.float()).square()  # (N, K)
    noise = torch.rand(squared.shape, generator=generator, device=generator.device).to(squared.device)
    gumbel = -(-noise.clamp_min(1e-12).log()).clamp_min(1e-12).log()
    result = codes.clone()
    result[doubtful] = (gumbel - squared / variance.clamp_min(1e-12)).argmax(dim=1)
    return result

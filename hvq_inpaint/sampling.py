"""Other plausible codes than the nearest ones, for several answers to one hole, in the line of Peng et al. (2021),
Generating diverse structure for image inpainting with hierarchical VQ-VAE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .config import SIZE_MULTIPLE
from .quantizer import EMAQuantizer, to_vectors
from .vqvae import HierarchicalVQVAE

# How far from a predicted vector codes are drawn, in distances that are usual between a vector and its code. Less, and
# the answers can hardly be told apart; more, and they are worse than the first (`benchmarks/several_answers.py`).
SPREAD = 2.0


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


def codes_by_rank(vectors: torch.Tensor, codebook: torch.Tensor, rank: int) -> torch.Tensor:
    """For vectors (N, D) the codes (N,) that `rank` others lie nearer than; ranks beyond the last start again at 1."""
    ordered = torch.cdist(vectors, codebook.float()).argsort(dim=1)
    return ordered[:, 1 + (rank - 1) % (len(codebook) - 1)]


def another_coarse(
    vqvae: HierarchicalVQVAE,
    global_latents: torch.Tensor,
    mid: torch.Tensor,
    credibility: torch.Tensor,
    usual_distance: torch.Tensor,
    known: torch.Tensor,
    number: int,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """The VQ stage's picture of other codes than the nearest, drawn at both levels where credibility is low.

    Where the missing part is least credible, answer `number` takes the local codes that so many others are nearer than:
    no two answers are alike, not even if all of a small hole is credible.

    Args:
        global_latents, mid: E1F2 (B, 64, H/8, W/8) and F_mid2 (B, 128, H/4, W/4) of `encode`.
        credibility: (B, 1, H/8, W/8) in [0, 1]. A missing cell is drawn with one minus it as probability.
        usual_distance: scalar, of global latents to their codes.
        known: (B, 1, H, W), 1 = known, 0 = missing.
        number: from 1.
        generators: one for each of the batch.

    Returns:
        (B, 3, H, W), not clamped.
    """
    share = F.avg_pool2d(1 - known, SIZE_MULTIPLE)[:, 0]  # (B, h, w), missing
    chances = [torch.rand(share.shape[1:], generator=g, device=g.device).to(known.device) for g in generators]
    doubtful = (share > 0) & (torch.stack(chances) > credibility[:, 0])

    def draw(
        quantizer: EMAQuantizer, latents: torch.Tensor, variance: torch.Tensor, where: torch.Tensor
    ) -> torch.Tensor:
        _, nearest = quantizer.quantize(latents)
        parts = [slice(i, i + 1) for i in range(len(latents))]
        codes = [
            sample_codes(latents[part], quantizer.codebook, SPREAD**2 * variance, where[part], nearest[part], generator)
            for part, generator in zip(parts, generators, strict=True)
        ]
        return torch.cat(codes)

    global_codes = draw(vqvae.global_quantizer, global_latents, usual_distance.square(), doubtful)
    global_quantized = vqvae.global_quantizer.vectors_of(global_codes)
    local_latents = vqvae.encoder_a2(global_quantized, mid).float()
    local_quantized, _ = vqvae.local_quantizer.quantize(local_latents)
    # The local level has no calibrated distances: the scale is that of this crop's own.
    variance = (local_latents - local_quantized).square().sum(dim=1).mean()

    def on_local_grid(cells: torch.Tensor) -> torch.Tensor:
        return cells.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)

    local_codes = draw(vqvae.local_quantizer, local_latents, variance, on_local_grid(doubtful))
    least = (credibility[:, 0] - share).flatten(1).argmin(dim=1)
    forced = on_local_grid(F.one_hot(least, share[0].numel()).bool().reshape(share.shape))
    local_codes[forced] = codes_by_rank(
        to_vectors(local_latents)[forced.flatten()], vqvae.local_quantizer.codebook, number
    )
    return vqvae.decoder_a(global_quantized, vqvae.local_quantizer.vectors_of(local_codes))

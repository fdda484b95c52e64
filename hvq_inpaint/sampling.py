"""Other plausible codes than the nearest ones, for several answers to one hole, in the line of Peng et al. (2021),
Generating diverse structure for image inpainting with hierarchical VQ-VAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F

from .config import SIZE_MULTIPLE
from .errors import InvalidInputError
from .quantizer import EMAQuantizer, to_vectors
from .vqvae import HierarchicalVQVAE

# How far from a predicted vector codes are drawn, in distances that are usual between a vector and its code. Less, and
# the answers can hardly be told apart; more, and they are worse than the first (`benchmarks/several_answers.py`).
SPREAD = 2.0


def check_seed(seed: int) -> None:
    """Raise if it is none that PyTorch's generators take."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise InvalidInputError(f"The seed must be a whole number from 0 to 2^63 - 1, not {seed!r}.")


def make_generators(
    seed: int, generator: torch.Generator | Sequence[torch.Generator] | None, number: int | None
) -> list[torch.Generator]:
    """One for each image, so that what is drawn for it does not depend on the others of its list.

    Args:
        seed: of each, if there is no `generator`.
        generator: draws for a single image; of a list of images, the seed of each. Or a list of as many.
        number: of images in a list; None: a single image.

    Raises:
        InvalidInputError: these are not a seed or generators.
    """
    if generator is None:
        check_seed(seed)
        return [torch.Generator().manual_seed(int(seed)) for _ in range(number or 1)]
    given = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if not all(isinstance(single, torch.Generator) for single in given):
        raise InvalidInputError(f"generator must be a torch.Generator or a list of them, not {generator!r}.")
    if isinstance(generator, (list, tuple)):
        if len(given) != (number or 1):
            raise InvalidInputError(f"There are {len(given)} generators for {number or 1} images.")
        return given
    if number is None:
        return given
    seeds = torch.randint(2**62, (number,), generator=generator, device=generator.device)
    return [torch.Generator().manual_seed(own) for own in seeds.tolist()]


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
    global_codes: torch.Tensor,
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
        global_latents, global_codes, mid: E1F2 (B, 64, H/8, W/8), its nearest codes (B, H/8, W/8), and F_mid2
            (B, 128, H/4, W/4), all of `encode`.
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
        quantizer: EMAQuantizer,
        latents: torch.Tensor,
        nearest: torch.Tensor,
        variances: torch.Tensor,
        where: torch.Tensor,
    ) -> torch.Tensor:
        codes = [
            sample_codes(
                latents[i : i + 1],
                quantizer.codebook,
                SPREAD**2 * variances[i],
                where[i : i + 1],
                nearest[i : i + 1],
                generator,
            )
            for i, generator in enumerate(generators)
        ]
        return torch.cat(codes)

    variances = usual_distance.square().expand(len(share))
    drawn = draw(vqvae.global_quantizer, global_latents, global_codes, variances, doubtful)
    global_quantized = vqvae.global_quantizer.vectors_of(drawn)
    local_latents = vqvae.encoder_a2(global_quantized, mid).float()
    local_quantized, local_codes = vqvae.local_quantizer.quantize(local_latents)
    # The local level has no calibrated distances: the scale is that of each crop's own.
    variances = (local_latents - local_quantized).square().sum(dim=1).mean(dim=(1, 2))

    def on_local_grid(cells: torch.Tensor) -> torch.Tensor:
        return cells.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)

    local_codes = draw(vqvae.local_quantizer, local_latents, local_codes, variances, on_local_grid(doubtful))
    # Of what is missing, and rather where all of a cell is.
    least = torch.where(share > 0, credibility[:, 0] - share, torch.inf).flatten(1).argmin(dim=1)
    forced = on_local_grid(F.one_hot(least, share[0].numel()).bool().reshape(share.shape))
    local_codes[forced] = codes_by_rank(
        to_vectors(local_latents)[forced.flatten()], vqvae.local_quantizer.codebook, number
    )
    return vqvae.decoder_a(global_quantized, vqvae.local_quantizer.vectors_of(local_codes))

"""The losses of the three stages: Eq. (2), (6), (10) and (11) to (17).

Pixels are in [0, 1], `known` is (B, 1, H, W) with 1 = known, and every function returns a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .errors import InvalidInputError

# RGB in [0, 1] (B, 3, H, W) to five feature maps (B, C_i, H_i, W_i).
FeatureFunction = Callable[[torch.Tensor], list[torch.Tensor]]

# A feature vector that is shorter than this, of mean activations of 1, is taken as none.
_UNIT_EPS = 1e-3

# Two images in [0, 1] (B, 3, H, W) to the distance of each pair (B,).
ImageDistance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def vqvae_loss(
    reconstruction: torch.Tensor, image: torch.Tensor, commitment: torch.Tensor, beta: float = 0.25
) -> torch.Tensor:
    """Eq. (2); `commitment` is the sum over both levels of mean((sg(q) - v)^2)."""
    return F.mse_loss(reconstruction.float(), image) + beta * commitment


def pool_known(known: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """M at feature resolution, (B, 1, *size): a cell is known only if all its pixels are known."""
    height, width = known.shape[-2:]
    if height % size[0] or width % size[1]:
        raise InvalidInputError(
            f"The mask of {height} x {width} is not a multiple of the features' {size[0]} x {size[1]}."
        )
    return -F.max_pool2d(-known, (height // size[0], width // size[1]))


def mid_loss(clean_mid: torch.Tensor, damaged_mid: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Eq. (6): L1 between F_mid1 and F_mid2 (B, C, h, w), the missing cells eight times.

    `known` at image resolution.
    """
    difference = (clean_mid.float() - damaged_mid.float()).abs()
    known_mid = pool_known(known.float(), tuple(clean_mid.shape[-2:]))
    return (difference * known_mid).mean() + 8 * (difference * (1 - known_mid)).mean()


def credibility_loss(
    clean: torch.Tensor, damaged: torch.Tensor, weights: torch.Tensor, low_credibility_weight: float = 8.0
) -> torch.Tensor:
    """Eq. (10): mean L2 distance of the vectors of E1F1 and E1F2, those of low credibility eight times more.

    Args:
        clean, damaged: (B, D, H, W).
        weights: VW of Eq. (9), (B, 1, H, W).
    """
    squared = (damaged.float() - clean.float()).square().sum(dim=1, keepdim=True)  # (B, 1, H, W)
    # The gradient of a square root is infinite at 0: there the norm is 0 and so is its gradient.
    norms = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)
    return norms.mean() + low_credibility_weight * (norms * weights).mean()


def code_loss(
    latents: torch.Tensor,
    codes: torch.Tensor,
    codebook: torch.Tensor,
    known: torch.Tensor,
    scale: torch.Tensor,
    missing_share: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of the intact image's codes, mean over the missing cells; an addition to the paper.

    A latent's probability of a code falls with the squared distance, p_k ~ exp(-|z - e_k|^2 / scale). Where several
    codes are possible a latent goes towards one that is likely, while the L1 of Eq. (6) takes it between them.

    Args:
        latents: predicted from the damaged image (B, D, H, W).
        codes: those of the intact one (B, H, W) int64.
        codebook: (K, D).
        known: at image resolution.
        scale: scalar, a squared distance.
        missing_share: scalar, the share of missing cells in the batch of which this is a part: then the mean of this
            loss over equal parts is that of the batch. None: this is the batch.
    """
    with torch.autocast(latents.device.type, enabled=False):
        vectors = latents.float().permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
        squared = codebook.square().sum(dim=1) - 2 * vectors @ codebook.t()  # (N, K), but for |z|^2, alike for all k
        entropies = F.cross_entropy(-squared / scale, codes.flatten(), reduction="none")  # (N,)
    missing = (1 - pool_known(known.float(), tuple(codes.shape[-2:]))).flatten()
    share = missing.mean() if missing_share is None else missing_share
    return (entropies * missing).mean() / share.clamp_min(1 / missing.numel())


def hole_loss(output: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Eq. (11): L1 in the hole, normalised by the whole image."""
    return ((output - target).abs() * (1 - known)).mean()


def valid_loss(output: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Eq. (12): L1 on the known pixels, normalised by the whole image."""
    return ((output - target).abs() * known).mean()


def composite(output: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Eq. (14): `output` in the hole, `target` (its known pixels) elsewhere, bit for bit."""
    return torch.where(known > 0.5, target, output)


def perceptual_loss(
    features: FeatureFunction, output: torch.Tensor, composite: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Eq. (13): L1 between the features of the target and those of I_comp and of I_out, a mean for each map."""
    total = output.new_zeros(())
    for of_output, of_composite, of_target in zip(features(output), features(composite), features(target), strict=True):
        total = total + (of_target - of_composite).abs().mean() + (of_target - of_output).abs().mean()
    return total


def gram_matrix(feature: torch.Tensor) -> torch.Tensor:
    """f f^T over the pixels of a map (B, C, H, W), not normalised, in float32: (B, C, C)."""
    with torch.autocast(feature.device.type, enabled=False):
        flat = feature.float().flatten(2)
        return flat @ flat.transpose(1, 2)


def style_loss(
    features: FeatureFunction, output: torch.Tensor, composite: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Eq. (15): L1 between Gram matrices over C^3 H W, summed over the maps, mean over the batch."""
    total = output.new_zeros(())
    for of_output, of_composite, of_target in zip(features(output), features(composite), features(target), strict=True):
        batch, channels, height, width = of_target.shape
        gram_target = gram_matrix(of_target)
        difference = (gram_target - gram_matrix(of_composite)).abs().sum() + (
            gram_target - gram_matrix(of_output)
        ).abs().sum()
        total = total + difference / (batch * channels**3 * height * width)
    return total


def tv_loss(composite: torch.Tensor) -> torch.Tensor:
    """Eq. (16): mean absolute horizontal step plus mean absolute vertical step of I_comp."""
    return (composite[..., :, 1:] - composite[..., :, :-1]).abs().mean() + (
        composite[..., 1:, :] - composite[..., :-1, :]
    ).abs().mean()


def unit_feature_loss(features: FeatureFunction, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of unit feature vectors, mean over the maps: LPIPS (Zhang et al. 2018) with equal weights.

    An addition to the paper. Unlike Eq. (13) it does not see how strong a feature is, only which ones there are: so it
    asks for texture without asking for contrast.

    Args:
        output, target: (B, 3, H, W).
    """
    distances = [
        _unit_distance(of_output, of_target).mean()
        for of_output, of_target in zip(features(output), features(target), strict=True)
    ]
    return torch.stack(distances).mean()


def _unit_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """|a / |a| - b / |b||^2 of the vectors of two maps (B, C, H, W): (B, H, W) float32, 0 where both are none.

    From three sums over the channels, so that no map has to be divided or kept in float32.
    """

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sum(dim=1, dtype=torch.float32)

    squared, others = product(first, first), product(second, second)
    # Of what is shorter than _UNIT_EPS the length is taken to be that: it counts for less, down to nothing.
    lengths, other_lengths = squared.clamp_min(_UNIT_EPS**2), others.clamp_min(_UNIT_EPS**2)
    return squared / lengths + others / other_lengths - 2 * product(first, second) * (lengths * other_lengths).rsqrt()


@dataclass(frozen=True)
class LossWeights:
    """The weight of each term of Eq. (17), and of two that the paper does not have: LPIPS and unit features."""

    hole: float = 1.0
    valid: float = 1.0
    perceptual: float = 1.0
    style: float = 1.0
    tv: float = 1.0
    lpips: float = 0.0
    unit_features: float = 0.0

    @property
    def needs_features(self) -> bool:
        """Whether a term of VGG-19's features takes part."""
        return self.perceptual > 0 or self.style > 0 or self.unit_features > 0


LOSS_PRESETS: dict[str, LossWeights] = {
    "paper": LossWeights(),
    "pconv": LossWeights(hole=6, valid=1, perceptual=0.05, style=120, tv=0.1),  # usual in this family of methods
    "l1": LossWeights(hole=6, valid=1, perceptual=0, style=0, tv=0),  # trains fastest at first
    # Sharper, at the cost of l1. LPIPS as a measure flatters what was trained with it.
    "lpips": LossWeights(hole=6, valid=1, perceptual=0, style=0, tv=0, lpips=2),
    "unit_features": LossWeights(hole=6, valid=1, perceptual=0, style=0, tv=0, unit_features=3),
    "unit_features_lpips": LossWeights(hole=6, valid=1, perceptual=0, style=0, tv=0, unit_features=3, lpips=1),
}


def refiner_loss(
    output: torch.Tensor,
    target: torch.Tensor,
    known: torch.Tensor,
    weights: LossWeights,
    features: FeatureFunction | None = None,
    lpips: ImageDistance | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Eq. (17): the weighted sum, and each unweighted term that takes part, by name.

    Args:
        output: I_out (B, 3, H, W), not clamped.
        target: I_gt (B, 3, H, W).
        features: the feature network; needed if `weights.needs_features`.
        lpips: needed if its weight is above 0; taken of I_comp.
    """
    if weights.needs_features and features is None:
        raise InvalidInputError("These loss weights use Eq. (13) or (15), which need a feature network.")
    if weights.lpips > 0 and lpips is None:
        raise InvalidInputError("These loss weights use LPIPS, which needs its network.")
    output = output.float()
    pasted = composite(output, target, known)
    terms = {"hole": hole_loss(output, target, known), "valid": valid_loss(output, target, known)}
    if weights.needs_features:
        # One pass of the network for all terms, each image's maps kept.
        cached: dict[int, list[torch.Tensor]] = {}

        def maps(image: torch.Tensor) -> list[torch.Tensor]:
            if id(image) not in cached:
                cached[id(image)] = features(image)
            return cached[id(image)]

        if weights.perceptual > 0 or weights.style > 0:
            terms["perceptual"] = perceptual_loss(maps, output, pasted, target)
            terms["style"] = style_loss(maps, output, pasted, target)
        if weights.unit_features > 0:
            terms["unit_features"] = unit_feature_loss(maps, pasted, target)
    if weights.tv > 0:
        terms["tv"] = tv_loss(pasted)
    if weights.lpips > 0:
        with torch.autocast(output.device.type, enabled=False):
            terms["lpips"] = lpips(pasted, target.float()).mean()
    total = sum(getattr(weights, name) * term for name, term in terms.items())
    return total, {name: term.detach() for name, term in terms.items()}

"""EncoderB1: predicts, from a damaged image, the latents that EncoderA1 gives the intact one (Section 3.2, step 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .blending import harmonic_extension
from .config import HVQConfig
from .execution import with_fitting_weights
from .vqvae import EncoderA1

# Of the last head at the start: it gives a cell three steps away a twentieth of the attention that its own cell gets.
_NARROWEST_FOCUS = 2.25


def rotary_angles(height: int, width: int, head_dim: int, device: torch.device) -> torch.Tensor:
    """A 2-D position signal for a grid of any size.

    The angle by which each pair of features of a query or key is turned.
    Half of the pairs turn with the row, half with the column, so attention sees only how far apart two cells are.

    Returns:
        (height * width, head_dim / 2) float32, in radians.
    """
    # Wavelengths from 2 pi to 2 pi * 100 cells.
    speeds = 100.0 ** -torch.linspace(0, 1, head_dim // 4, device=device)
    rows = torch.arange(height, device=device, dtype=torch.float32)[:, None, None] * speeds  # (H, 1, D/4)
    columns = torch.arange(width, device=device, dtype=torch.float32)[None, :, None] * speeds  # (1, W, D/4)
    shape = (height, width, head_dim // 4)
    return torch.cat([rows.expand(shape), columns.expand(shape)], dim=-1).reshape(height * width, head_dim // 2)


def rotate(features: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + D/2) of `features` (B, heads, N, D) by `angles` (N, D/2)."""
    cosine, sine = angles.cos().to(features.dtype), angles.sin().to(features.dtype)
    first, second = features.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class TransformerBlock(nn.Module):
    """A pre-norm transformer block: attention, then an MLP of four times the width with GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self._focus_heads()

    @torch.no_grad()
    def _focus_heads(self) -> None:
        """Start with heads that look from everywhere to close by, so that a hole sees its surroundings from the first
        step.

        A constant query and key, once turned by their positions, agree best at distance 0 and less the farther apart
        they are; the larger the constant, the narrower the view.
        """
        if self.query_key_value.bias.is_meta:  # only its shape is asked for
            return
        bias = self.query_key_value.bias.view(3, self.heads, -1)
        bias[:2] = 0
        bias[:2, :, : bias.shape[-1] // 2] = torch.linspace(0, _NARROWEST_FOCUS, self.heads)[:, None]

    def forward(self, tokens: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """`tokens` (B, N, width) to the same shape; `angles` (N, head_dim / 2) from `rotary_angles`."""
        batch, number, width = tokens.shape
        query, key, value = (
            self.query_key_value(self.norm1(tokens)).reshape(batch, number, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(
            rotate(query, angles), rotate(key, angles), value
        )  # (B, heads, N, head_dim)
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(batch, number, width))
        return tokens + self.mlp(self.norm2(tokens))


class EncoderB1(nn.Module):
    """Convolutions as in EncoderA1, on four channels, and a transformer that corrects what they say.

    The transformer's output is added to the latents of the convolutions and, with `transformer_feedback`, to F_mid2.
    Both additions start at zero: an untrained EncoderB1 that was started by `start_from` equals EncoderA1.
    """

    def __init__(self, config: HVQConfig) -> None:
        super().__init__()
        width, dim, mid = config.transformer_width, config.code_dim, config.mid_channels
        self.head_dim = width // config.transformer_heads
        self.harmonic_input = config.harmonic_input
        # Of EncoderA1's output on intact images. The latents of a VQ-VAE may be of any scale: not brought to one, small
        # ones drown in the embedding of what is known, and the first steps overshoot.
        self.register_buffer("latent_mean", torch.zeros(dim))
        self.register_buffer("latent_scale", torch.ones(dim))
        self.register_buffer("mid_scale", torch.ones(mid, 1, 1))
        self.convolutions = EncoderA1(config, in_channels=4)
        self.embed_latents = nn.Linear(dim, width)
        self.embed_known = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.transformer_heads) for _ in range(config.transformer_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.to_latents = _zero(nn.Linear(width, dim))
        # Without the feedback F_mid2 is made by convolutions that see 34 pixels: nothing of the image deep inside a
        # hole.
        self.feedback = (
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),  # (B, 256, H/4, W/4)
                nn.Conv2d(width, mid, 3, padding=1),
                nn.ReLU(),
                _zero(nn.Conv2d(mid, mid, 3, padding=1)),
            )
            if config.transformer_feedback
            else None
        )

    @torch.no_grad()
    def start_from(self, encoder_a1: EncoderA1, images: torch.Tensor) -> None:
        """Copy the trained EncoderA1 into the convolutions, the weights of the fourth channel at zero.

        Args:
            images: intact images (N, 3, H, W) in [0, 1], from which the scales of F_mid1 and E1F1 are taken.
        """
        mids, latents = zip(*(encoder_a1(part) for part in images.split(16)), strict=True)
        self.latent_mean.copy_(torch.cat(latents).mean(dim=(0, 2, 3)))
        self.latent_scale.copy_(torch.cat(latents).std(dim=(0, 2, 3)).clamp_min(1e-6))
        self.mid_scale.copy_(torch.cat(mids).std(dim=(0, 2, 3)).clamp_min(1e-6)[:, None, None])
        state = encoder_a1.state_dict()
        first = state["to_mid.0.weight"]
        state["to_mid.0.weight"] = torch.cat([first, torch.zeros_like(first[:, :1])], dim=1)
        self.convolutions.load_state_dict(state)

    @with_fitting_weights
    def forward(self, damaged: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From a damaged image to F_mid2 and E1F2.

        Args:
            damaged: (B, 3, H, W) in [0, 1], 0 where missing; H and W multiples of 8. With the configuration's
                `harmonic_input` the hole is filled smoothly before the first layer sees it: the start is then a coarse
                guess of the picture, and not codes of black.
            known: (B, 1, H, W), 1 = known, 0 = missing.

        Returns:
            `mid` (B, 128, H/4, W/4) and `global_latents` (B, 64, H/8, W/8).
        """
        if self.harmonic_input:
            damaged = harmonic_extension(damaged.float(), known)
        mid, latents = self.convolutions(torch.cat([damaged, 1 - known], dim=1))
        height, width = latents.shape[-2:]
        known_share = F.avg_pool2d(known, 8).flatten(2).transpose(1, 2)  # (B, N, 1)
        standardised = (latents.flatten(2).transpose(1, 2) - self.latent_mean) / self.latent_scale  # (B, N, 64)
        tokens = self.embed_latents(standardised) + self.embed_known(known_share)  # (B, N, 256)
        angles = rotary_angles(height, width, self.head_dim, latents.device)
        for block in self.blocks:
            tokens = block(tokens, angles)
        tokens = self.norm(tokens)
        correction = self.to_latents(tokens) * self.latent_scale  # (B, N, 64)
        global_latents = latents + correction.transpose(1, 2).unflatten(2, (height, width))
        if self.feedback is not None:
            mid = mid + self.mid_scale * self.feedback(tokens.transpose(1, 2).unflatten(2, (height, width)))
        return mid, global_latents


def _zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """`layer` with weights and bias at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

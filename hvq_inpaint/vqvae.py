"""The hierarchical VQ-VAE: EncoderA1, EncoderA2, DecoderA and the two codebooks.

Section 3.2 of the paper, Figure 2a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .config import SIZE_MULTIPLE, HVQConfig
from .errors import InvalidInputError
from .execution import channels_last, with_fitting_weights
from .pretrained import PretrainedModel
from .quantizer import EMAQuantizer


class ResidualBlock(nn.Module):
    """x + conv1(ReLU(conv3(ReLU(x))))."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, hidden_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv1(F.relu(self.conv3(F.relu(x))))


def residual_stack(config: HVQConfig) -> list[nn.Module]:
    """The residual blocks of a stage, closed by a ReLU."""
    return [
        *(ResidualBlock(config.mid_channels, config.residual_channels) for _ in range(config.residual_blocks)),
        nn.ReLU(),
    ]


class EncoderA1(nn.Module):
    """Image to F_mid and the unquantised global latents. `in_channels` is 4 where EncoderB1 uses the same layers."""

    def __init__(self, config: HVQConfig, in_channels: int = 3) -> None:
        super().__init__()
        stem, mid, dim = config.stem_channels, config.mid_channels, config.code_dim
        self.to_mid = nn.Sequential(
            nn.Conv2d(in_channels, stem, 4, stride=2, padding=1),  # (B, 64, H/2, W/2)
            nn.ReLU(),
            nn.Conv2d(stem, mid, 4, stride=2, padding=1),  # (B, 128, H/4, W/4)
            nn.ReLU(),
            nn.Conv2d(mid, mid, 3, padding=1),
            *residual_stack(config),
        )
        self.to_global = nn.Sequential(
            nn.Conv2d(mid, stem, 4, stride=2, padding=1),  # (B, 64, H/8, W/8)
            nn.ReLU(),
            nn.Conv2d(stem, mid, 3, padding=1),
            *residual_stack(config),
            nn.Conv2d(mid, dim, 1),
        )

    @with_fitting_weights
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`image` (B, 3, H, W) in [0, 1] to `mid` (B, 128, H/4, W/4) and `global_latents` (B, 64, H/8, W/8)."""
        mid = self.to_mid(channels_last(image))
        return mid, self.to_global(mid)


class EncoderA2(nn.Module):
    """Q1 and F_mid to the unquantised local latents."""

    def __init__(self, config: HVQConfig) -> None:
        super().__init__()
        self.decode_global = nn.Sequential(
            nn.Conv2d(config.code_dim, config.mid_channels, 3, padding=1),
            *residual_stack(config),
            nn.ConvTranspose2d(config.mid_channels, config.code_dim, 4, stride=2, padding=1),  # (B, 64, H/4, W/4)
        )
        self.merge = nn.Conv2d(config.code_dim + config.mid_channels, config.code_dim, 1)

    @with_fitting_weights
    def forward(self, global_quantized: torch.Tensor, mid: torch.Tensor) -> torch.Tensor:
        """`global_quantized` (B, 64, H/8, W/8) and `mid` (B, 128, H/4, W/4) to `local_latents` (B, 64, H/4, W/4)."""
        return self.merge(torch.cat([self.decode_global(global_quantized), mid], dim=1))


class DecoderA(nn.Module):
    """Q1 and Q2 to pixels."""

    def __init__(self, config: HVQConfig) -> None:
        super().__init__()
        stem, mid, dim = config.stem_channels, config.mid_channels, config.code_dim
        self.upsample_global = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)  # (B, 64, H/4, W/4)
        self.to_image = nn.Sequential(
            nn.Conv2d(2 * dim, mid, 3, padding=1),
            *residual_stack(config),
            nn.ConvTranspose2d(mid, stem, 4, stride=2, padding=1),  # (B, 64, H/2, W/2)
            nn.ReLU(),
            nn.ConvTranspose2d(stem, 3, 4, stride=2, padding=1),  # (B, 3, H, W)
        )

    @with_fitting_weights
    def forward(self, global_quantized: torch.Tensor, local_quantized: torch.Tensor) -> torch.Tensor:
        """Q1 (B, 64, H/8, W/8) and Q2 (B, 64, H/4, W/4) to an image (B, 3, H, W), not clamped."""
        return self.to_image(torch.cat([self.upsample_global(global_quantized), local_quantized], dim=1)).contiguous()


@dataclass
class VQVAEOutput:
    """What the hierarchical VQ-VAE makes of an intact image; shapes for an image (B, 3, H, W)."""

    mid: torch.Tensor  # F_mid1 (B, 128, H/4, W/4)
    global_latents: torch.Tensor  # E1F1 (B, 64, H/8, W/8)
    global_quantized: torch.Tensor  # Q1 (B, 64, H/8, W/8)
    global_codes: torch.Tensor  # (B, H/8, W/8) int64
    local_latents: torch.Tensor  # (B, 64, H/4, W/4)
    local_quantized: torch.Tensor  # Q2 (B, 64, H/4, W/4)
    local_codes: torch.Tensor  # (B, H/4, W/4) int64
    commitment: torch.Tensor  # scalar, summed over both levels, unweighted
    reconstruction: torch.Tensor  # R1 (B, 3, H, W), not clamped


@dataclass
class ImageCodes:
    """An image (B, 3, H, W) as codes, from 0 to K - 1."""

    global_codes: torch.Tensor  # (B, H/8, W/8) int64
    local_codes: torch.Tensor  # (B, H/4, W/4) int64


class HierarchicalVQVAE(PretrainedModel):
    """Two codebooks over one image: 32 x 32 global and 64 x 64 local codes for 256 x 256 pixels.

    By itself it is a tokenizer of images: `encode` gives codes, `decode` the image that they stand for.

    Args:
        config: an `HVQConfig`, or its fields as a dict; the preset `paper` if not given.
    """

    architecture = "HierarchicalVQVAE"
    prefix = "vqvae."

    def __init__(self, config: HVQConfig | dict[str, Any] | None = None) -> None:
        super().__init__(config)
        config = self.config
        self.encoder_a1 = EncoderA1(config)
        self.global_quantizer = EMAQuantizer(config.num_codes, config.code_dim, config.codebook_decay)
        self.encoder_a2 = EncoderA2(config)
        self.local_quantizer = EMAQuantizer(config.num_codes, config.code_dim, config.codebook_decay)
        self.decoder_a = DecoderA(config)

    def forward(self, image: torch.Tensor) -> VQVAEOutput:
        """`image` (B, 3, H, W) in [0, 1], H and W multiples of 8. Updates the codebooks in train mode."""
        mid, global_latents = self.encoder_a1(image)
        global_quantized, global_codes, global_commitment = self.global_quantizer(global_latents)
        local_latents = self.encoder_a2(global_quantized, mid)
        local_quantized, local_codes, local_commitment = self.local_quantizer(local_latents)
        return VQVAEOutput(
            mid=mid,
            global_latents=global_latents,
            global_quantized=global_quantized,
            global_codes=global_codes,
            local_latents=local_latents,
            local_quantized=local_quantized,
            local_codes=local_codes,
            commitment=global_commitment + local_commitment,
            reconstruction=self.decoder_a(global_quantized, local_quantized),
        )

    def encode(self, image: torch.Tensor) -> ImageCodes:
        """An image as codes; updates no codebook, whatever the mode.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W multiples of 8.

        Raises:
            InvalidInputError: it has another shape.
        """
        fits = image.ndim == 4 and image.shape[1] == 3 and image.numel()
        if not fits or any(size % SIZE_MULTIPLE for size in image.shape[2:]):
            raise InvalidInputError(
                f"An image must be (B, 3, H, W), H and W multiples of {SIZE_MULTIPLE}, not {tuple(image.shape)}."
            )
        mid, global_latents = self.encoder_a1(image)
        global_quantized, global_codes = self.global_quantizer.quantize(global_latents)
        _, local_codes = self.local_quantizer.quantize(self.encoder_a2(global_quantized, mid))
        return ImageCodes(global_codes, local_codes)

    def decode(self, global_codes: torch.Tensor, local_codes: torch.Tensor) -> torch.Tensor:
        """The image that codes stand for: (B, 3, H, W) in [0, 1].

        Args:
            global_codes: (B, H/8, W/8), integers from 0 to K - 1.
            local_codes: (B, H/4, W/4), the same.

        Raises:
            InvalidInputError: they do not fit together, or there are no such codes.
        """
        batch, height, width = global_codes.shape if global_codes.ndim == 3 else (0, 0, 0)
        if not global_codes.numel() or local_codes.shape != (batch, 2 * height, 2 * width):
            raise InvalidInputError(
                "Global codes must be (B, H/8, W/8) and local codes (B, H/4, W/4), not "
                f"{tuple(global_codes.shape)} and {tuple(local_codes.shape)}."
            )
        for codes in (global_codes, local_codes):
            if codes.is_floating_point() or codes.min() < 0 or codes.max() >= self.config.num_codes:
                raise InvalidInputError(f"Codes must be integers from 0 to {self.config.num_codes - 1}.")
        return self.decoder_a(
            self.global_quantizer.vectors_of(global_codes), self.local_quantizer.vectors_of(local_codes)
        ).clamp(0, 1)

    def decode_with_mid(
        self, global_quantized: torch.Tensor, mid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Q1 (B, 64, H/8, W/8) and an F_mid (B, 128, H/4, W/4), clean or damaged, to pixels. Updates no codebook.

        Returns:
            `local_quantized` Q2 (B, 64, H/4, W/4), `local_codes` (B, H/4, W/4) int64, and the image (B, 3, H, W), not
            clamped.
        """
        local_quantized, local_codes = self.local_quantizer.quantize(self.encoder_a2(global_quantized, mid))
        return local_quantized, local_codes, self.decoder_a(global_quantized, local_quantized)

    def forward_continuous(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same path without quantisation, for the warm-up: `reconstruction`, `global_latents`, `local_latents`."""
        mid, global_latents = self.encoder_a1(image)
        local_latents = self.encoder_a2(global_latents, mid)
        return self.decoder_a(global_latents, local_latents), global_latents, local_latents

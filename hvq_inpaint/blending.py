"""Poisson blending of a fill into the known pixels (Pérez, Gangnet and Blake 2003, Poisson image editing).

An addition to the paper, which does not say how the known pixels enter the refiner's input: the preset `paper` pastes
them over the VQ stage's result. Blended, the hole has the Laplacian of that result (up to the error that is left by the
sweeps, and the clamp to [0, 1]) and meets the known pixels at its border, so that no offset in colour is left there.
Blended with nothing, a hole is the solution of Laplace's equation: what EncoderB1 sees there with `harmonic_input`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def poisson_composite(fill: torch.Tensor, image: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """`image` where it is known, elsewhere `fill` blended into it.

    Args:
        fill: (B, C, H, W) in [0, 1], everywhere, as its difference from the known pixels is what is spread.
        image: (B, C, H, W) in [0, 1]; what it holds where `known` is 0 is ignored.
        known: (B, 1, H, W), 1 = known, 0 = missing.

    Returns:
        (B, C, H, W) float32 in [0, 1]; the known pixels bit for bit.
    """
    fill, image = fill.float(), image.float()
    blended = fill + harmonic_extension(image - fill, known)
    return torch.where(known > 0.5, image, blended.clamp(0, 1))


def harmonic_extension(values: torch.Tensor, known: torch.Tensor, sweeps: int = 12) -> torch.Tensor:
    """Continue `values` from the known pixels into the hole, such that each pixel there is the mean of its neighbours.

    Cascadic multigrid: the solution of half the size is the start of the next, where the Jacobi sweeps then only have
    to mend what is local.

    Args:
        values: (B, C, H, W) float32; what it holds where `known` is 0 is ignored.
        known: (B, 1, H, W), 1 = known, 0 = missing. An image with no known pixel becomes 0.
        sweeps: Jacobi sweeps at each size.

    Returns:
        (B, C, H, W): the solution of Laplace's equation with the known pixels as boundary values, the border of the
        image reflecting, up to the error that the sweeps leave.
    """
    if torch.compiler.is_exporting():  # how many sizes there are depends on the image: a traced graph can't say that
        return torch.ops.hvq_inpaint.harmonic_extension(values, known, sweeps)
    height, width = values.shape[-2:]
    is_known = known > 0.5
    values = torch.where(is_known, values, 0).contiguous()  # the sweeps are twice as slow in channels_last
    if height == width == 1:
        return values
    share = F.avg_pool2d(is_known.float(), 2, ceil_mode=True)  # (B, 1, ceil(H/2), ceil(W/2)), of known pixels
    half = F.avg_pool2d(values, 2, ceil_mode=True) / share.clamp_min(0.125)  # the means of the known ones
    start = F.interpolate(
        harmonic_extension(half, share > 0, sweeps), scale_factor=2, mode="bilinear", align_corners=False
    )
    solution = torch.where(is_known, values, start[..., :height, :width])
    for _ in range(sweeps):
        padded = F.pad(solution, (1, 1, 1, 1), mode="replicate")
        neighbours = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
        solution = torch.where(is_known, values, neighbours / 4)
    return solution


@torch.library.custom_op("hvq_inpaint::harmonic_extension", mutates_args=())
def _harmonic_extension(values: torch.Tensor, known: torch.Tensor, sweeps: int) -> torch.Tensor:
    """The same as one operation, for exported programs; `export` has it for ONNX."""
    return harmonic_extension(values, known, sweeps)


@_harmonic_extension.register_fake
def _(values: torch.Tensor, known: torch.Tensor, sweeps: int) -> torch.Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)

"""Image inpainting with a hierarchical VQ-VAE and vector credibility (Li, Xu, Chen, Electronics 2024, 13, 1852)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import HVQConfig
from .errors import InvalidInputError

if TYPE_CHECKING:
    from .inpainter import HVQInpainter, InpaintResult

__version__ = "0.1.0"

__all__ = ["HVQConfig", "HVQInpainter", "InpaintResult", "InvalidInputError", "__version__"]


def __getattr__(name: str) -> object:
    """HVQInpainter and InpaintResult, imported when first asked for.

    PyTorch is slow to import, `--help` need not wait for it.
    """
    if name in ("HVQInpainter", "InpaintResult"):
        from . import inpainter

        return getattr(inpainter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

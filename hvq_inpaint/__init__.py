"""Image inpainting with a hierarchical VQ-VAE and vector credibility (Li, Xu, Chen, Electronics 2024, 13, 1852)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import HVQConfig
from .errors import InvalidInputError

if TYPE_CHECKING:
    from .filling import Cancelled, InpaintResult
    from .inpainter import HVQInpainter

__version__ = "0.1.0"

__all__ = ["Cancelled", "HVQConfig", "HVQInpainter", "InpaintResult", "InvalidInputError", "__version__"]


def __getattr__(name: str) -> object:
    """Names of the modules that use PyTorch, imported when first asked for.

    PyTorch is slow to import, `--help` need not wait for it.
    """
    if name == "HVQInpainter":
        from . import inpainter

        return inpainter.HVQInpainter
    if name in ("Cancelled", "InpaintResult"):
        from . import filling

        return getattr(filling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Image inpainting with a hierarchical VQ-VAE and vector credibility (Li, Xu, Chen, Electronics 2024, 13, 1852)."""

from .config import HVQConfig
from .errors import InvalidInputError
from .inpainter import HVQInpainter, InpaintResult

__version__ = "0.1.0"

__all__ = ["HVQConfig", "HVQInpainter", "InpaintResult", "InvalidInputError", "__version__"]

"""The classical methods to compare with: OpenCV's Telea and Navier-Stokes inpainting."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..errors import InvalidInputError

OPENCV_RADIUS = 3  # pixels, the neighbourhood that cv2.inpaint considers

OPENCV_METHODS = ("telea", "navier_stokes")


def load_opencv() -> ModuleType:
    """The module `cv2`.

    Raises:
        InvalidInputError: OpenCV, which is optional, is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise InvalidInputError(
            "The comparison with OpenCV needs opencv-python: "
            "install it with pip install opencv-python-headless, or leave its rows out with --no-opencv."
        ) from None
    return cv2


def inpaint_opencv(pixels: np.ndarray, missing: np.ndarray, method: str) -> np.ndarray:
    """Fill a hole with `cv2.inpaint`.

    Args:
        pixels: (H, W, 3) uint8, RGB. What it holds in the hole is not used.
        missing: (H, W) bool, True = fill.
        method: one of `OPENCV_METHODS`.

    Returns:
        (H, W, 3) uint8, RGB, the known pixels unchanged.
    """
    cv2 = load_opencv()
    flag = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}[method]
    damaged = np.where(missing[..., None], np.uint8(0), pixels)
    # OpenCV's pictures are BGR.
    filled = cv2.inpaint(np.ascontiguousarray(damaged[..., ::-1]), missing.astype(np.uint8) * 255, OPENCV_RADIUS, flag)
    return np.where(missing[..., None], filled[..., ::-1], pixels)

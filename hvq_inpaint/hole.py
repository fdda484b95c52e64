"""What is to be repainted: a mask in any form as a bool array, grown against ghosts, feathered against seams."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image

from .errors import InvalidInputError
from .images import GREY_16_MODES, MODES, ImageLike, Photograph, open_image, upright


def load_mask(mask: ImageLike, size: tuple[int, int]) -> np.ndarray:
    """Any accepted form of a mask as a bool array (H, W), True = repaint.

    Args:
        mask: a path or PIL image (cut at half of white), or an array or tensor (H, W), (H, W, 1) or (1, H, W) of bool,
            of integers 0 and 1 or 0 to 255, or of floats in [0, 1].
        size: height and width of the image that it belongs to.
    """
    if isinstance(mask, (str, os.PathLike)):
        mask = open_image(mask)
    if isinstance(mask, Image.Image):
        array = mask_of_picture(mask)
    elif isinstance(mask, (np.ndarray, torch.Tensor)):
        if isinstance(mask, torch.Tensor):
            mask = mask.detach().cpu()
            mask = (mask.float() if mask.dtype == torch.bfloat16 else mask).numpy()
        array = _mask_of_array(mask)
    else:
        raise InvalidInputError(f"A mask must be a path, a PIL image, an array or a tensor, not {type(mask).__name__}.")
    if array.shape != size:
        raise InvalidInputError(
            f"The mask is {array.shape[1]} x {array.shape[0]} pixels and the image {size[1]} x {size[0]}: "
            "both must have the same width and height."
        )
    return _neither_empty_nor_full(array)


def mask_of_alpha(photograph: Photograph) -> np.ndarray:
    """What is transparent, by more than half, in a photograph: bool (H, W), True = repaint."""
    alpha = photograph.alpha()
    if alpha is None:
        raise InvalidInputError("There is no mask, and the image has no transparency to take one from.")
    if alpha.min() > 127:
        raise InvalidInputError("There is no mask, and nothing of the image is transparent.")
    return _neither_empty_nor_full(alpha <= 127)


def mask_of_picture(picture: Image.Image) -> np.ndarray:
    """A picture cut at half of white: bool (H, W), True = repaint; empty or full masks pass.

    What is transparent is not white, whatever colour lies under it.
    """
    picture = upright(picture)
    if picture.mode in GREY_16_MODES:
        return np.asarray(picture) > 32767
    if picture.mode not in MODES:
        raise InvalidInputError(f"A mask of mode {picture.mode} can't be read; save it with 8 bits.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return np.asarray(picture.convert("L")) > 127


def _mask_of_array(mask: np.ndarray) -> np.ndarray:
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[:, :, 0]
    elif mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2:
        raise InvalidInputError(f"A mask must be (H, W), (H, W, 1) or (1, H, W), not {mask.shape}.")
    if mask.dtype == bool:
        return mask
    if np.issubdtype(mask.dtype, np.integer):
        if mask.size and (mask.min() < 0 or mask.max() > 255):
            raise InvalidInputError(
                f"An integer mask must hold 0 and 1, or 0 to 255, not {mask.min()} to {mask.max()}."
            )
        return mask > (0 if mask.size and mask.max() == 1 else 127)
    if not np.issubdtype(mask.dtype, np.floating):
        raise InvalidInputError(f"A mask must be bool, integer or float, not {mask.dtype}.")
    if not np.isfinite(mask).all() or (mask.size and (mask.min() < 0 or mask.max() > 1)):
        raise InvalidInputError("A float mask must lie in [0, 1], without NaN.")
    return mask > 0.5


def _neither_empty_nor_full(mask: np.ndarray, after: str = "") -> np.ndarray:
    if not mask.any():
        raise InvalidInputError("The mask is empty: mark what is to be filled with white, True or 1.")
    if mask.all():
        raise InvalidInputError(f"The mask covers the whole image{after}: nothing is left to fill it from.")
    return mask


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """`mask` (H, W) bool and all that lies no farther than `radius` pixels from it.

    Raises:
        InvalidInputError: all of the image does.
    """
    if not radius:
        return mask
    return _neither_empty_nor_full(grown(mask, radius), f" once it has grown by {radius} pixels")


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """The same for a part of an image, which may be covered whole."""
    rows, columns = box_around(mask, radius)
    result = mask.copy()
    result[rows, columns] = distance_to(mask[rows, columns]) <= radius
    return result


def feather_weights(mask: np.ndarray, feather: int) -> np.ndarray:
    """How much of the fill is seen around `mask` (h, w) bool: 1 in it, falling to 0 just beyond `feather` pixels.

    Returns:
        (h, w) float32.
    """
    return (1 - distance_to(mask) / (feather + 1)).clip(0, 1).astype(np.float32)


def box_around(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """The rows and columns of the bounding box of a mask that is not empty, `margin` more on every side."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)),
    )


def distance_to(mask: np.ndarray) -> np.ndarray:
    """The distance of each pixel to the nearest True one, in pixels (h, w)."""
    from scipy.ndimage import distance_transform_edt  # slow to import

    if not mask.any():
        return np.full(mask.shape, np.inf)
    return distance_transform_edt(~mask)

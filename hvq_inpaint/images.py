"""Photographs and masks in and out: files, PIL images, arrays and tensors to pixels, and back to the caller's form.

Nothing here knows of a network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InvalidInputError

ImageLike = Image.Image | np.ndarray | torch.Tensor | str | os.PathLike[str]

_MODES = ("L", "RGB", "RGBA")


@dataclass
class Photograph:
    """An upright image as pixels, with what it takes to give the result back in the same form."""

    pixels: np.ndarray  # (H, W, 3) uint8
    mode: str = "RGB"
    alpha: np.ndarray | None = None  # (H, W) uint8
    info: dict[str, Any] = field(default_factory=dict)  # ICC profile and EXIF block, as PIL's save takes them

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def with_pixels(self, pixels: np.ndarray) -> Image.Image:
        """`pixels` (H, W, 3) uint8 as a PIL image of this photograph's mode, alpha, ICC profile and EXIF kept."""
        image = Image.fromarray(pixels)
        if self.mode == "L":
            # All three channels of a grey photograph are equal where it is known; the luma weights keep such a value.
            image = image.convert("L")
        elif self.mode == "RGBA":
            image = Image.fromarray(np.dstack([pixels, self.alpha]))
        image.info.update(self.info)
        return image


def open_image(file: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """The decoded image of a file, given by its path or opened for reading.

    Raises:
        InvalidInputError: the file is missing, not an image, truncated, animated or dangerously large.
    """
    path = Path(file) if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "The image")
    try:
        image = Image.open(file)
        # The first frame of an MPO, as many phones save JPEG, is the photograph; the others are previews or gain maps.
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise InvalidInputError(
                f"{path} holds {image.n_frames} frames: save the one to be filled as an image of its own."
            )
        image.load()
    except FileNotFoundError:
        raise InvalidInputError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise InvalidInputError(f"{path} is a folder, not an image.") from None
    except UnidentifiedImageError:
        raise InvalidInputError(f"{path} is not an image that can be read; use JPEG, PNG, WebP, TIFF or BMP.") from None
    except Image.DecompressionBombError:
        raise InvalidInputError(
            f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS} pixels, too many to be decoded safely."
        ) from None
    except (OSError, SyntaxError) as error:  # Pillow reports a damaged PNG as a SyntaxError
        raise InvalidInputError(f"{path} can't be decoded, it may be truncated: {error}.") from None
    return image


def load_photograph(image: ImageLike) -> Photograph:
    """Any accepted form of an image as a `Photograph`.

    Args:
        image: a path, a PIL image of mode L, RGB or RGBA, an array (H, W, 3) of uint8 or of floats in [0, 1], or a
            tensor (3, H, W) of floats in [0, 1]. The EXIF orientation is applied.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise InvalidInputError(f"An image tensor must be (3, H, W), not {tuple(image.shape)}.")
        image = image.detach().cpu().float().permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        return Photograph(_pixels_of_array(image))
    raise InvalidInputError(f"An image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}.")


def _from_pil(image: Image.Image) -> Photograph:
    if image.mode not in _MODES:
        raise InvalidInputError(
            f"Images of mode {image.mode} can't be filled; convert it to one of {', '.join(_MODES)} first."
        )
    if 0 in image.size:
        raise InvalidInputError(f"The image is empty, {image.size[0]} x {image.size[1]} pixels.")
    # The transposed image carries an EXIF block whose orientation is upright.
    upright = ImageOps.exif_transpose(image)
    info = {name: upright.info[name] for name in ("icc_profile", "exif") if upright.info.get(name)}
    alpha = np.array(upright.getchannel("A")) if image.mode == "RGBA" else None
    return Photograph(np.array(upright.convert("RGB")), image.mode, alpha, info)


def _pixels_of_array(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InvalidInputError(f"An image array must be (H, W, 3), not {array.shape}.")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise InvalidInputError(f"An image array must be uint8 or float in [0, 1], not {array.dtype}.")
    if not np.isfinite(array).all():
        raise InvalidInputError("The image has pixels that are NaN or infinite.")
    if array.min() < 0 or array.max() > 1:
        raise InvalidInputError(
            f"The pixels of a float image must lie in [0, 1], not in [{array.min():g}, {array.max():g}]."
        )
    return np.round(array * 255).astype(np.uint8)


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
        array = _mask_of_array(mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else mask)
    else:
        raise InvalidInputError(f"A mask must be a path, a PIL image, an array or a tensor, not {type(mask).__name__}.")
    if array.shape != size:
        raise InvalidInputError(
            f"The mask is {array.shape[1]} x {array.shape[0]} pixels and the image {size[1]} x {size[0]}: "
            "both must have the same width and height."
        )
    if not array.any():
        raise InvalidInputError("The mask is empty: mark what is to be filled with white, True or 1.")
    if array.all():
        raise InvalidInputError("The mask covers the whole image: nothing is left to fill it from.")
    return array


def mask_of_picture(picture: Image.Image) -> np.ndarray:
    """A picture cut at half of white: bool (H, W), True = repaint; empty or full masks pass."""
    # No rescaling of 16-bit greys: their white would be clipped to one.
    if picture.mode.startswith(("I", "F")):
        raise InvalidInputError(f"A mask of mode {picture.mode} can't be read; save it with 8 bits.")
    return np.array(ImageOps.exif_transpose(picture).convert("L")) > 127


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
    if not np.isfinite(mask).all() or (mask.size and (mask.min() < 0 or mask.max() > 1)):
        raise InvalidInputError("A float mask must lie in [0, 1], without NaN.")
    return mask > 0.5


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (H, W, 3) uint8 as (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0).float() / 255


def to_pixels(tensor: torch.Tensor) -> np.ndarray:
    """A tensor (3, H, W) as pixels (H, W, 3) uint8, clamped to [0, 1] and rounded."""
    return (tensor.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class Region:
    """A rectangle of a photograph, rows [top, bottom) and columns [left, right), and the scale to work on it."""

    top: int
    left: int
    bottom: int
    right: int
    working_size: tuple[int, int]  # height and width inside the network

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


def working_region(mask: np.ndarray, longest_side: int = 512) -> Region:
    """The part of a photograph to work on: the mask's bounding box and as much again around it.

    Args:
        mask: (H, W) bool, True = repaint.
        longest_side: a larger region is worked at a reduced scale, its longest side as given.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))

    def extend(first: int, last: int, limit: int) -> tuple[int, int]:
        extent = last + 1 - first
        length = min(limit, max(2 * extent, longest_side))
        start = min(max(0, first - (length - extent) // 2), limit - length)
        return start, start + length

    top, bottom = extend(int(rows[0]), int(rows[-1]), mask.shape[0])
    left, right = extend(int(columns[0]), int(columns[-1]), mask.shape[1])
    height, width = bottom - top, right - left
    scale = min(1.0, longest_side / max(height, width))
    return Region(top, left, bottom, right, (max(1, round(height * scale)), max(1, round(width * scale))))


def shrink(image: torch.Tensor, known: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Reduce an image and what is known of it by area averages; a pixel stays known only if all of its area is.

    So nothing of what the mask hides leaks into the known pixels around it.
    """
    if tuple(image.shape[-2:]) == size:
        return image, known
    return F.adaptive_avg_pool2d(image, size), (F.adaptive_avg_pool2d(known, size) > 1 - 1e-6).float()


def pad_to_multiple(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend (B, C, H, W) to the right and below, by repeating the last column and row, to multiples of `multiple`."""
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % multiple, 0, -height % multiple), mode="replicate")

"""Photographs in and out: files, PIL images, arrays and tensors, and the fill pasted in the photograph's own mode.

Nothing here knows of a mask's making or of a network.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import InvalidInputError

# What is tried on a file; not all that Pillow knows, as some of its readers start other programs. JPEG is MPO as well.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
GREY_16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", *GREY_16_MODES)

_ORIENTATION = 0x0112  # EXIF tag
# Description, make, model, software, date, artist, copyright.
_DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


@dataclass(frozen=True)
class Patch:
    """What is to be painted into a rectangle of a photograph."""

    top: int
    left: int
    where: np.ndarray  # (h, w) bool, True = paint
    colours: np.ndarray  # (h, w, 3) float32 in [0, 1]
    weights: np.ndarray | None = None  # (h, w) float32 in [0, 1], 1 = the new colour alone; None: 1 everywhere

    @property
    def slices(self) -> tuple[slice, slice]:
        height, width = self.where.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def over(self, old: np.ndarray) -> np.ndarray:
        """The colours over those of the photograph, `old` (h, w, 3) in [0, 1]: (h, w, 3)."""
        if self.weights is None:
            return self.colours
        return old + self.weights[..., None] * (self.colours - old)


@dataclass(frozen=True)
class Photograph:
    """An upright image in its own mode, read and painted a rectangle at a time: whole copies of large ones are dear."""

    image: Image.Image
    array: np.ndarray | None = None  # (H, W, 3) float in [0, 1], where it was given as such

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width

    @property
    def mode(self) -> str:
        """Of Pillow."""
        return self.image.mode

    @cached_property
    def white(self) -> int:
        """The value of white in a 16-bit grey: all bits that are in use set, as many cameras fill 10 or 12 of them."""
        return 2 ** max(8, int(np.asarray(self.image).max()).bit_length()) - 1

    def colours(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A rectangle as (h, w, 3) float32 RGB in [0, 1], without alpha."""
        if self.array is not None:
            return self.array[rows, columns].astype(np.float32)
        if self.mode in GREY_16_MODES:
            grey = np.asarray(self._crop(rows, columns)).astype(np.float32) / self.white
            return np.repeat(grey[..., None], 3, axis=2)
        return self.pixels(rows, columns).astype(np.float32) / 255

    def pixels(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A rectangle as (h, w, 3) uint8 RGB, without alpha."""
        if self.mode in GREY_16_MODES:
            return _to_bytes(self.colours(rows, columns))
        crop = self._crop(rows, columns)
        if self.mode == "CMYK":
            return np.asarray(_rgb_of_cmyk(crop, self.image.info.get("icc_profile")))
        if self.mode == "P":
            crop = crop.convert("RGBA")  # an entry of the palette may be transparent
        return np.asarray(crop.convert("RGB"))

    def alpha(self) -> np.ndarray | None:
        """(H, W) uint8, 0 = transparent; None if the photograph has none."""
        if self.mode in ("LA", "RGBA"):
            return np.asarray(self.image.getchannel("A"))
        if self.mode == "P" and "transparency" in self.image.info:
            return _palette(self.image)[:, 3][np.asarray(self.image)]
        key = self._transparent_value()
        if key is None:
            return None
        return np.where(_equals(np.asarray(self.image), key), 0, 255).astype(np.uint8)

    def painted(self, patches: Sequence[Patch], opaque: bool = False) -> Image.Image:
        """A copy with `patches` painted, in the photograph's own mode, with its alpha, palette, ICC profile and EXIF.

        Args:
            opaque: what is painted becomes opaque; else it keeps the alpha that was there.
        """
        result = self.image.copy()
        for patch in patches:
            rows, columns = patch.slices
            crop = self._crop(rows, columns)
            old = np.asarray(crop)
            new, where = self._in_own_mode(patch.over(self.colours(rows, columns)), crop, opaque), patch.where
            key = self._transparent_value()
            if key is not None:
                new = np.where(_equals(new, key)[(..., *(None,) * (new.ndim - 2))], _neighbour(key, new.dtype), new)
                where = where if opaque else where & ~_equals(old, key)
            merged = np.where(where[(..., *(None,) * (old.ndim - 2))], new, old).astype(old.dtype)
            result.paste(_image_like(merged, crop), (patch.left, patch.top))
        return result

    def painted_array(self, patches: Sequence[Patch], opaque: bool = False) -> np.ndarray:
        """The same as RGB (H, W, 3): of the float type that was given, else uint8."""
        if self.array is None:
            return Photograph(self.painted(patches, opaque)).pixels().copy()
        result = self.array.copy()
        for patch in patches:
            colours = patch.over(self.colours(*patch.slices)).astype(result.dtype)
            result[patch.slices] = np.where(patch.where[..., None], colours, result[patch.slices])
        return result

    def _crop(self, rows: slice, columns: slice) -> Image.Image:
        top, bottom, _ = rows.indices(self.image.height)
        left, right, _ = columns.indices(self.image.width)
        crop = self.image.crop((left, top, right, bottom))
        crop.info = self.image.info
        return crop

    def _transparent_value(self) -> tuple[int, ...] | None:
        """The one colour that a PNG without an alpha channel says is transparent."""
        value = self.image.info.get("transparency")
        if value is None or self.mode not in ("1", "L", "RGB", *GREY_16_MODES) or isinstance(value, bytes):
            return None
        return tuple(np.atleast_1d(value).tolist())

    def _in_own_mode(self, colours: np.ndarray, crop: Image.Image, opaque: bool) -> np.ndarray:
        """(h, w, 3) in [0, 1] as the numbers of the photograph's mode, alpha as in `crop` or 255."""
        if self.mode in GREY_16_MODES:
            luma = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            return np.round(luma * self.white).astype(np.uint16)
        rgb = Image.fromarray(_to_bytes(colours))
        if self.mode == "CMYK":
            return np.asarray(_cmyk_of_rgb(rgb, self.image.info.get("icc_profile")))
        if self.mode == "P":
            return _nearest_entries(np.asarray(rgb), np.asarray(crop), _palette(self.image), opaque)
        if self.mode == "1":
            return np.asarray(rgb.convert("L")) > 127
        if self.mode in ("L", "RGB"):
            return np.asarray(rgb.convert(self.mode))
        plain = rgb.convert(self.mode[:-1])  # LA, RGBA
        plain.putalpha(Image.new("L", plain.size, 255) if opaque else crop.getchannel("A"))
        return np.asarray(plain)


ImageLike = Photograph | Image.Image | np.ndarray | torch.Tensor | str | os.PathLike[str]


def _to_bytes(colours: np.ndarray) -> np.ndarray:
    return np.round(colours.clip(0, 1) * 255).astype(np.uint8)


def _image_like(array: np.ndarray, image: Image.Image) -> Image.Image:
    """An array of the numbers of `image`, as an image of its mode."""
    return Image.frombytes(
        image.mode, image.size, (np.packbits(array, axis=1) if image.mode == "1" else array).tobytes()
    )


def _equals(numbers: np.ndarray, value: tuple[int, ...]) -> np.ndarray:
    """Where the pixels (h, w) or (h, w, C) are `value`: (h, w) bool."""
    same = numbers == np.array(value)
    return same if numbers.ndim == 2 else same.all(axis=2)


def _neighbour(value: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The colour next to `value`."""
    top = 1 if dtype.kind == "b" else np.iinfo(dtype).max
    return np.array([number - 1 if number == top else number + 1 for number in value]).astype(dtype)


def _palette(image: Image.Image) -> np.ndarray:
    """The colours of a palette image, (K, 4) uint8 RGBA."""
    image.load()  # only then does the palette know of what is transparent
    entries = np.array(image.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
    transparency = image.info.get("transparency")
    if isinstance(transparency, bytes):
        alpha = np.frombuffer(transparency, dtype=np.uint8)[: len(entries)]
        entries[: len(alpha), 3] = alpha
    elif transparency is not None and transparency < len(entries):
        entries[transparency, 3] = 0
    return entries


def _nearest_entries(rgb: np.ndarray, indices: np.ndarray, palette: np.ndarray, opaque: bool) -> np.ndarray:
    """The index of the nearest colour of `palette` for each pixel of `rgb` (h, w, 3), among those of its own alpha.

    A pixel whose alpha is that of no other entry keeps its index, `indices` (h, w).
    """
    from scipy.spatial import cKDTree  # slow to import

    result = indices.copy()
    alpha = np.full(indices.shape, 255) if opaque else palette[indices, 3]
    for value in np.unique(alpha):
        allowed = np.flatnonzero(palette[:, 3] == value)
        if not len(allowed):
            raise InvalidInputError(
                "The palette of the image has no opaque colour to fill with; convert it to RGBA first."
            )
        where = alpha == value
        result[where] = allowed[cKDTree(palette[allowed, :3].astype(float)).query(rgb[where].astype(float))[1]]
    return result


def _rgb_of_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    return _through_profile(image, profile, "RGB") or image.convert("RGB")


def _cmyk_of_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    return _through_profile(image, profile, "CMYK") or image.convert("CMYK")


def _through_profile(image: Image.Image, profile: bytes | None, mode: str) -> Image.Image | None:
    """Between CMYK with its ICC profile and sRGB; None without a profile that can do it."""
    if not profile:
        return None
    try:
        cmyk, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *((srgb, cmyk) if mode == "CMYK" else (cmyk, srgb)), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):  # a torn profile, or one of another colour space
        return None


def open_image(file: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """The decoded image of a file, given by its path or opened for reading.

    Raises:
        InvalidInputError: the file is missing, not an image, truncated, animated, dangerously large, or has more bits
            a colour than Pillow holds.
    """
    path = Path(file) if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "The image")
    try:
        with Image.open(file, formats=FORMATS) as image:
            # The first frame of an MPO, as many phones save JPEG, is the photograph; others are previews or gain maps.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise InvalidInputError(
                    f"{path} holds {image.n_frames} frames: save the one to be filled as an image of its own."
                )
            if image.mode not in GREY_16_MODES and ";16" in str(image.tile):
                raise InvalidInputError(
                    f"{path} has 16 bits for each colour, which would be cut to 8: save it with 8 bits first."
                )
            image.load()
    except FileNotFoundError:
        raise InvalidInputError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise InvalidInputError(f"{path} is a folder, not an image.") from None
    except PermissionError:
        raise InvalidInputError(f"{path} can't be read: permission denied.") from None
    except UnidentifiedImageError:
        raise InvalidInputError(f"{path} is not an image that can be read; use JPEG, PNG, WebP, TIFF or BMP.") from None
    except Image.DecompressionBombError:
        raise InvalidInputError(
            f"{path} has more than {2 * Image.MAX_IMAGE_PIXELS} pixels, too many to be decoded safely."
        ) from None
    except (OSError, SyntaxError, TypeError, ValueError) as error:
        # Pillow reports a damaged PNG as a SyntaxError, and a TIFF's directory without a size as a TypeError.
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{path} can't be decoded, it may be truncated: {error}.") from None
    return image


def is_several(value: ImageLike | Sequence[ImageLike]) -> bool:
    """Whether it is a list of images, or an array or tensor (B, ...) with a batch in front."""
    return isinstance(value, (list, tuple)) or (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim == 4)


def load_photograph(image: ImageLike) -> Photograph:
    """Any accepted form of an image as a `Photograph`.

    Args:
        image: a `Photograph`, a path, a PIL image of one of `MODES`, an array (H, W, 3) or a tensor (3, H, W) of
            uint8 or of floats in [0, 1]. The EXIF orientation is applied.
    """
    if isinstance(image, Photograph):
        return image
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise InvalidInputError(f"An image tensor must be (3, H, W), not {tuple(image.shape)}.")
        image = image.detach().cpu().permute(1, 2, 0)
        # NumPy has no bfloat16.
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise InvalidInputError(f"An image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}.")


def _from_pil(image: Image.Image) -> Photograph:
    if image.mode not in MODES:
        raise InvalidInputError(
            f"Images of mode {image.mode} can't be filled; convert it to one of {', '.join(MODES[:-3])} first."
        )
    if 0 in image.size:
        raise InvalidInputError(f"The image is empty, {image.size[0]} x {image.size[1]} pixels.")
    exif = _exif_of(image)
    turned = upright(image)
    if image.format == "TIFF" and "exif" not in turned.info:
        # Its tags are those of the file as well: only what tells of the photograph goes on.
        kept = Image.Exif()
        kept.update({tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif})
        if len(kept):
            turned = turned if turned is not image else image.copy()
            turned.info["exif"] = kept.tobytes()
    return Photograph(turned)


def _exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF block of an image; an empty one if it can't be read."""
    try:
        return image.getexif()
    except SyntaxError:  # of Pillow's reader of TIFF, in whose form EXIF is
        return Image.Exif()


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF says, with an EXIF block that says upright; the image itself if it says nothing."""
    return ImageOps.exif_transpose(image) if _exif_of(image).get(_ORIENTATION, 1) != 1 else image


def _from_array(array: np.ndarray) -> Photograph:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InvalidInputError(f"An image array must be (H, W, 3), not {array.shape}.")
    if array.dtype == np.uint8:
        return Photograph(Image.fromarray(array))
    if not np.issubdtype(array.dtype, np.floating) or array.dtype.itemsize > 8:
        raise InvalidInputError(f"An image array must be uint8 or float in [0, 1], not {array.dtype}.")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # other orders are none of PyTorch's
    if not np.isfinite(array).all():
        raise InvalidInputError("The image has pixels that are NaN or infinite.")
    if array.min() < 0 or array.max() > 1:
        raise InvalidInputError(
            f"The pixels of a float image must lie in [0, 1], not in [{array.min():g}, {array.max():g}]."
        )
    return Photograph(Image.fromarray(_to_bytes(array)), array)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (H, W, 3), uint8 or float in [0, 1], as (1, 3, H, W) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).unsqueeze(0)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()


def to_pixels(tensor: torch.Tensor) -> np.ndarray:
    """A tensor (3, H, W) as pixels (H, W, 3) uint8, clamped to [0, 1] and rounded."""
    return (tensor.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

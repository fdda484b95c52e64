"""Files out: an image in the format of its name, several files together or none of them."""

from __future__ import annotations

import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import InvalidInputError
from .images import GREY_16_MODES, Photograph

# How an image is saved, by the suffix of its file. All but JPEG keep every pixel.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
    ".bmp": {"format": "BMP"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
_LOSSY = (".jpg", ".jpeg")

# What these formats can't hold; TIFF holds all.
_NOT_HELD = {
    "PNG": ("CMYK",),
    "WEBP": ("CMYK", *GREY_16_MODES),  # greys and palettes become the same colours as RGB
    "BMP": ("LA", "RGBA", "CMYK", *GREY_16_MODES),
    "JPEG": ("1", "P", *GREY_16_MODES),
}
_LONGEST_SIDE = {"WEBP": 16383, "JPEG": 65500}  # pixels


def is_lossy(path: Path) -> bool:
    """Whether the format of `path` changes pixels a little."""
    return path.suffix.lower() in _LOSSY


def lossless_suffix(mode: str) -> str:
    """Of the format in which an image of this mode is saved unless something else is asked for."""
    return ".tif" if mode == "CMYK" else ".png"


def check_format(path: Path, photograph: Photograph, source: Path) -> None:
    """Refuse a name whose format can't hold the result for a photograph, which is `source`."""
    name, mode = SAVE_OPTIONS[path.suffix.lower()]["format"], photograph.mode
    if name == "JPEG" and mode in ("LA", "RGBA"):
        raise InvalidInputError(f"JPEG has no transparency, which {source} has; let the result end in .png.")
    if mode in _NOT_HELD.get(name, ()):
        raise InvalidInputError(
            f"{name} can't hold images of mode {mode}, as {source} is; let the result end in {lossless_suffix(mode)}."
        )
    if "transparency" in photograph.image.info and name != "PNG":
        raise InvalidInputError(
            f"{name} can't hold the transparent colour that {source} has; let the result end in .png."
        )
    if max(photograph.size) > _LONGEST_SIDE.get(name, sys.maxsize):
        raise InvalidInputError(
            f"{name} holds at most {_LONGEST_SIDE[name]} pixels a side, fewer than {source} has; let the result end in "
            f"{lossless_suffix(mode)}."
        )


def save_image(image: Image.Image, path: Path, suffix: str) -> None:
    """Save in the format of `suffix`, with the ICC profile, EXIF block and resolution that the image carries."""
    names = ("icc_profile", "exif", "dpi")
    carried = {name: image.info[name] for name in names if image.info.get(name)}
    if not all(math.isfinite(value) and value > 0 for value in carried.get("dpi", ())):
        del carried["dpi"]  # some programs write 0 / 0
    try:
        image.save(path, **SAVE_OPTIONS[suffix], **carried)
    except ValueError as error:  # a side or an EXIF block that is too long for the format
        raise InvalidInputError(
            f"{SAVE_OPTIONS[suffix]['format']} can't hold the result, {str(error).rstrip('.')}; take another format."
        ) from None


@contextmanager
def all_or_nothing() -> Iterator[Callable[[Path], Path]]:
    """Files that appear under their names together at the end of the block, or not at all if it raises.

    Yields a function that takes the path of a file to be and returns the temporary path to write it to.
    """
    pairs: list[tuple[Path, Path]] = []

    def partial(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not the whole name with more to it, which may be too long for a file.
        pairs.append((path.with_name(f".{path.name[:32]}.{uuid.uuid4().hex[:8]}.partial"), path))
        return pairs[-1][0]

    try:
        yield partial
        for temporary, path in pairs:
            temporary.replace(path)
    finally:
        for temporary, _ in pairs:
            temporary.unlink(missing_ok=True)


def check_targets(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse now what could not be written later, after all the work."""
    for path in paths:
        if path.is_dir():
            raise InvalidInputError(f"{path} is a folder; the result needs the name of a file.")
        if path.exists() and not overwrite:
            raise InvalidInputError(f"{path} exists already; choose another name, or --overwrite to replace it.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise InvalidInputError(f"{path} can't be written, as {folder} is a file.")
        if not os.access(folder, os.W_OK):
            raise InvalidInputError(f"{path} can't be written, as the folder {folder} is not writable.")

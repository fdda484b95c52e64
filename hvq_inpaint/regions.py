"""Where and at what scale a photograph is worked: whole, reduced, or cropped around each hole with its surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .errors import InvalidInputError
from .hole import box_around

STRATEGIES = ("auto", "original", "resize", "crop")

# A hole that is less than this part of the working size in height and width is worked in one crop at its own scale.
_WIDEST_HOLE = 0.625
# In cells of this many pixels it is looked for a hole's thickest part.
_CELL = 8


@dataclass(frozen=True)
class Region:
    """A rectangle of a photograph, rows [top, bottom) and columns [left, right), and the scale to work on it."""

    top: int
    left: int
    bottom: int
    right: int
    working_size: tuple[int, int]  # height and width inside the network
    hole: tuple[slice, slice]  # the rows and columns of the photograph whose missing pixels it fills
    refine: bool = False  # worked at a reduced scale, the fill is then refined at the photograph's own

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in the photograph."""
        return self.bottom - self.top, self.right - self.left


def plan(mask: np.ndarray, strategy: str = "auto", working_size: int = 512) -> list[Region]:
    """The regions to work on, one after the other; each missing pixel is in the `hole` of exactly one.

    Args:
        mask: (H, W) bool, True = repaint, somewhere.
        strategy: `original`: the whole photograph at its own scale, whatever memory that takes. `resize`: the whole
            photograph, reduced to the working size. `crop`: around each hole; one that is too large for the working
            size is worked reduced and then refined at its own scale, unless it is thin, as a scratch or a
            text: then it is worked in parts. `auto`: `original` if the photograph fits the working size, else `crop`.
        working_size: longest side inside the network, in pixels.

    Raises:
        InvalidInputError: there is no such strategy, or the working size is no positive multiple of 8.
    """
    check_options(strategy, working_size)
    height, width = mask.shape
    longest = max(height, width)
    if strategy == "original" or (strategy == "auto" and longest <= working_size):
        return [Region(0, 0, height, width, (height, width), box_around(mask))]
    if strategy == "resize":
        return [Region(0, 0, height, width, _reduced((height, width), working_size), box_around(mask))]
    return [
        region for rows, columns in _groups(mask, working_size) for region in _crops(mask, rows, columns, working_size)
    ]


def check_options(strategy: str, working_size: int) -> None:
    """Raise what `plan` would raise."""
    if strategy not in STRATEGIES:
        raise InvalidInputError(f"There is no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}.")
    if working_size < 64 or working_size % 8:
        raise InvalidInputError(f"The working size must be a multiple of 8 and at least 64, not {working_size}.")


def _groups(mask: np.ndarray, working_size: int) -> Iterator[tuple[slice, slice]]:
    """Boxes of holes: cut along empty rows and columns until each fits a crop, or no such cut is left."""
    yield from _cut(mask, (slice(0, mask.shape[0]), slice(0, mask.shape[1])), working_size, through_holes=False)


def _cut(
    mask: np.ndarray, box: tuple[slice, slice], working_size: int, through_holes: bool
) -> Iterator[tuple[slice, slice]]:
    rows, columns = box
    part = mask[rows, columns]
    if not part.any():
        return
    inner_rows, inner_columns = box_around(part)
    rows = slice(rows.start + inner_rows.start, rows.start + inner_rows.stop)
    columns = slice(columns.start + inner_columns.start, columns.start + inner_columns.stop)
    part = mask[rows, columns]
    limit = int(working_size * (0.5 if through_holes else _WIDEST_HOLE))
    if max(part.shape) <= limit:
        yield rows, columns
        return
    # Across the longer side first; through the middle of the widest gap, or where the fewest missing pixels are cut.
    for axis in (0, 1) if part.shape[0] >= part.shape[1] else (1, 0):
        if part.shape[axis] <= limit:
            continue
        missing = part.sum(axis=1 - axis)
        at = _widest_gap(missing)
        if at is None and through_holes:
            quarter = len(missing) // 4
            middle = np.abs(np.arange(len(missing)) - len(missing) / 2) / len(missing)
            at = quarter + int((missing + middle)[quarter : len(missing) - quarter].argmin())
        if at is not None:
            extent = (rows, columns)[axis]
            for piece in (slice(extent.start, extent.start + at), slice(extent.start + at, extent.stop)):
                yield from _cut(mask, (piece, columns) if axis == 0 else (rows, piece), working_size, through_holes)
            return
    yield rows, columns


def _widest_gap(missing: np.ndarray) -> int | None:
    """The middle of the longest run of zeros in `missing` (n,), which begins and ends with none; None without any.

    Of all that are at least half as long it is the most central one: many holes alike, such as lines of text, are then
    halved again and again, and not cut off one by one.
    """
    occupied = np.flatnonzero(missing)
    gaps = np.diff(occupied)
    if not len(gaps) or gaps.max() == 1:
        return None
    middles = occupied[:-1] + (gaps + 1) // 2
    wide = np.flatnonzero((gaps > 1) & (2 * gaps >= gaps.max()))
    return int(middles[wide[np.abs(middles[wide] - len(missing) / 2).argmin()]])


def _crops(mask: np.ndarray, rows: slice, columns: slice, working_size: int) -> Iterator[Region]:
    """The regions for the holes of one box."""
    extent = max(rows.stop - rows.start, columns.stop - columns.start)
    if extent <= working_size * _WIDEST_HOLE:
        yield _window(mask.shape, rows, columns, working_size)
    elif not _is_thick(mask[rows, columns], working_size // 8):
        for part in _cut(mask, (rows, columns), working_size, through_holes=True):
            yield _window(mask.shape, *part, working_size)
    else:
        yield _window(mask.shape, rows, columns, 2 * extent, working_size)


def _is_thick(mask: np.ndarray, extent: int) -> bool:
    """Whether there is a square of about `extent` pixels without a known one."""
    height, width = (length // _CELL * _CELL for length in mask.shape)
    if min(height, width) < extent:
        return False
    cells = mask[:height, :width].reshape(height // _CELL, _CELL, width // _CELL, _CELL).all(axis=(1, 3))
    known = torch.from_numpy(~cells)[None, None].float()
    side = max(1, extent // _CELL)
    return min(known.shape[-2:]) >= side and float(F.max_pool2d(known, side, stride=1).min()) == 0


def _window(size: tuple[int, int], rows: slice, columns: slice, extent: int, longest_side: int | None = None) -> Region:
    """A region of `extent` around a box, moved into the photograph; reduced if it exceeds `longest_side`."""

    def extend(inner: slice, limit: int) -> tuple[int, int]:
        length = min(limit, max(extent, inner.stop - inner.start))
        start = min(max(0, inner.start - (length - (inner.stop - inner.start)) // 2), limit - length)
        return start, start + length

    (top, bottom), (left, right) = extend(rows, size[0]), extend(columns, size[1])
    own = bottom - top, right - left
    working = own if longest_side is None else _reduced(own, longest_side)
    return Region(top, left, bottom, right, working, (rows, columns), refine=working != own)


def _reduced(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    scale = min(1.0, longest_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


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

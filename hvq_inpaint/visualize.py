"""The pipeline's intermediates as pictures: code maps in colours, credibility on a colour ramp.

Pure functions of arrays; nothing here knows of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .errors import InvalidInputError

# Longest side of a picture made from a code map or a credibility map, which are 8 or 4 times smaller than their image.
LONGEST_SIDE = 512

# The difference, in grey levels, that is brightest in a picture of errors.
MOST_ERROR = 64

# The intermediates of `InpaintResult.stages`, in the order of the pipeline.
STAGE_NAMES = ("damaged", "global_codes", "local_codes", "credibility", "coarse", "refined", "composite")

# Of a labelled grid, in pixels.
_TITLE_HEIGHT, _TITLE_SIZE, _GAP = 22, 14, 4

# A ramp from dark violet to bright yellow whose lightness rises evenly, so that it reads the same in grey and to a
# colour-blind eye: the colours of viridis (van der Walt and Smith, CC0) at ten equal steps.
_RAMP = np.array(
    [
        (68, 1, 84),
        (72, 40, 120),
        (62, 73, 137),
        (49, 104, 142),
        (38, 130, 142),
        (31, 158, 137),
        (53, 183, 121),
        (110, 206, 88),
        (181, 222, 43),
        (253, 231, 37),
    ],
    dtype=np.float64,
)

# From linear sRGB to the responses of the eye's cones, and from their cube roots to OKLab (Ottosson 2020).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

# The palette's colours are picked from a grid of this many values in each of red, green and blue.
_GRID_STEPS = 20
_LIGHTNESS_RANGE = (0.3, 0.95)  # of OKLab; neither near black, which is the colour of a hole, nor near white


def oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB colours in OKLab (Ottosson 2020), where equal distances look about equally different.

    Args:
        colours: (..., 3) sRGB in [0, 255].

    Returns:
        (..., 3) float64: lightness in [0, 1], and the two axes green to red and blue to yellow in about [-0.4, 0.4].
    """
    values = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T


@lru_cache(maxsize=8)
def _palette(num_codes: int) -> np.ndarray:
    steps = np.linspace(0, 255, _GRID_STEPS).round()
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = oklab(grid)
    usable = (positions[:, 0] >= _LIGHTNESS_RANGE[0]) & (positions[:, 0] <= _LIGHTNESS_RANGE[1])
    grid, positions = grid[usable], positions[usable]
    if not 1 <= num_codes <= len(grid):
        raise InvalidInputError(f"A palette can have 1 to {len(grid)} colours, not {num_codes}.")
    # The first one is the most vivid red; each next one is the farthest from all before it.
    chosen = [int(np.argmax(positions[:, 1]))]
    nearest = np.full(len(grid), np.inf)
    while len(chosen) < num_codes:
        nearest = np.minimum(nearest, np.square(positions - positions[chosen[-1]]).sum(axis=1))
        chosen.append(int(np.argmax(nearest)))
    palette = grid[chosen].astype(np.uint8)
    palette.setflags(write=False)
    return palette


def code_palette(num_codes: int) -> np.ndarray:
    """A colour for each code, the same for ever: every colour is as far from those before it as can be.

    Args:
        num_codes: K, from 1 to a few thousand.

    Returns:
        (K, 3) uint8 RGB, all different; a shorter palette is the beginning of a longer one. Read-only.

    Raises:
        InvalidInputError: no such number of colours can be told apart.
    """
    return _palette(int(num_codes))


def code_picture(codes: np.ndarray, num_codes: int, longest_side: int = LONGEST_SIDE) -> Image.Image:
    """A code map as a picture, a square of one colour for each cell.

    Args:
        codes: (h, w) integers in [0, num_codes - 1].
        num_codes: K, the size of the codebook.
        longest_side: of the picture, in pixels; the aspect ratio is that of `codes`, which is never made smaller.

    Returns:
        An RGB picture.

    Raises:
        InvalidInputError: `codes` is not a map of such codes.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise InvalidInputError(f"A code map must be (h, w) integers, not {codes.shape} of {codes.dtype}.")
    if codes.min() < 0 or codes.max() >= num_codes:
        raise InvalidInputError(f"The codes must lie in [0, {num_codes - 1}], not in [{codes.min()}, {codes.max()}].")
    return _enlarge(Image.fromarray(code_palette(num_codes)[codes]), longest_side)


def credibility_colours(credibility: np.ndarray) -> np.ndarray:
    """Credibility on the colour ramp: dark violet where nothing is credible, bright yellow where all is.

    Args:
        credibility: (h, w) floats in [0, 1], 1 = credible.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        InvalidInputError: `credibility` is not such a map.
    """
    credibility = np.asarray(credibility)
    if credibility.ndim != 2 or not credibility.size or not np.issubdtype(credibility.dtype, np.floating):
        raise InvalidInputError(
            f"A credibility map must be (h, w) floats, not {credibility.shape} of {credibility.dtype}."
        )
    if not (credibility.min() >= 0 and credibility.max() <= 1):  # false for NaN too
        raise InvalidInputError(
            f"Credibility must lie in [0, 1], not in [{credibility.min():g}, {credibility.max():g}]."
        )
    return _on_ramp(credibility)


def ramp() -> list[tuple[int, int, int]]:
    """The colours of the ramp at equal steps, from 0 to 1, for a legend."""
    return [tuple(int(value) for value in colour) for colour in _RAMP]


def _on_ramp(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as (..., 3) uint8 RGB."""
    steps = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(values, steps, channel) for channel in _RAMP.T], axis=-1).round().astype(np.uint8)


def error_picture(output: np.ndarray, original: np.ndarray, most: int = MOST_ERROR) -> Image.Image:
    """Where and by how much two pictures differ: dark violet where they are equal, bright yellow from `most` on.

    Args:
        output, original: (H, W, 3) uint8 RGB.
        most: a difference in grey levels, mean over the three channels.

    Returns:
        An RGB picture of the same size.

    Raises:
        InvalidInputError: the two are not of one size.
    """
    if output.shape != original.shape:
        raise InvalidInputError(f"Pictures of {output.shape} and {original.shape} can't be compared.")
    rows = max(1, 2**22 // output.shape[1])  # a large photograph takes no copy as floats
    strips = []
    for top in range(0, len(output), rows):
        here = slice(top, top + rows)
        difference = np.abs(output[here].astype(np.float32) - original[here]).mean(axis=2)
        strips.append(_on_ramp((difference / most).clip(max=1)))
    return Image.fromarray(np.concatenate(strips))


def credibility_picture(
    credibility: np.ndarray,
    longest_side: int = LONGEST_SIDE,
    photograph: Image.Image | None = None,
    opacity: float = 0.6,
) -> Image.Image:
    """A credibility map as a picture of its own, or laid over the photograph that it belongs to.

    Args:
        credibility: (h, w) floats in [0, 1], 1 = credible.
        longest_side: of the picture, in pixels, where there is no photograph.
        photograph: the part of the photograph that the map covers; the picture then has its size.
        opacity: of the map on the photograph, in [0, 1].

    Returns:
        An RGB picture.

    Raises:
        InvalidInputError: `credibility` is not such a map, or `opacity` lies outside [0, 1].
    """
    if not 0 <= opacity <= 1:
        raise InvalidInputError(f"The opacity must lie in [0, 1], not {opacity:g}.")
    picture = Image.fromarray(credibility_colours(credibility))
    if photograph is None:
        return _enlarge(picture, longest_side)
    return Image.blend(photograph.convert("RGB"), picture.resize(photograph.size, Image.Resampling.NEAREST), opacity)


def stage_pictures(stages: dict[str, Any], num_codes: int) -> dict[str, Image.Image]:
    """Every intermediate of a result as a picture.

    Args:
        stages: `InpaintResult.stages`. Its code maps and its credibility cover the part of the photograph that was
            worked on, which for a large photograph is less than the whole.
        num_codes: K, the size of the codebooks.

    Returns:
        A picture for each of `STAGE_NAMES`, in that order.
    """
    pictures = {name: stages[name] for name in STAGE_NAMES}
    for name in ("global_codes", "local_codes"):
        pictures[name] = code_picture(stages[name], num_codes)
    pictures["credibility"] = credibility_picture(stages["credibility"])
    return pictures


def labelled_grid(rows: dict[str, list[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Pictures side by side under the titles of their columns.

    Args:
        rows: by the title of each row, which stands upright on its left; as many pictures as `titles`, all of one size.

    Returns:
        An RGB picture.

    Raises:
        InvalidInputError: there is nothing to show, or the rows do not fit the titles.
    """
    if not rows or not titles or any(len(pictures) != len(titles) for pictures in rows.values()):
        raise InvalidInputError("A grid needs at least one row, and in each row a picture for every title.")
    width, height = next(iter(rows.values()))[0].size
    size = (_TITLE_HEIGHT + len(titles) * (width + _GAP) - _GAP, _TITLE_HEIGHT + len(rows) * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        centre = _TITLE_HEIGHT + column * (width + _GAP) + width / 2
        draw.text((centre, _TITLE_HEIGHT / 2), title, fill="black", anchor="mm", font_size=_TITLE_SIZE)
    for row, (title, pictures) in enumerate(rows.items()):
        top = _TITLE_HEIGHT + row * (height + _GAP)
        label = Image.new("RGB", (height, _TITLE_HEIGHT), "white")
        position = (height / 2, _TITLE_HEIGHT / 2)
        ImageDraw.Draw(label).text(position, title, fill="black", anchor="mm", font_size=_TITLE_SIZE)
        sheet.paste(label.transpose(Image.Transpose.ROTATE_90), (0, top))
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_TITLE_HEIGHT + column * (width + _GAP), top))
    return sheet


def _enlarge(picture: Image.Image, longest_side: int) -> Image.Image:
    """`picture` with its longest side as given, cells kept sharp; a larger one stays as it is."""
    scale = max(1.0, longest_side / max(picture.size))
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.NEAREST)

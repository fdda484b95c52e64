"""Seeded masks: the paper's random walk, brush strokes, boxes. True = repaint.

(kind, height, width, ratio, seed) names one mask for ever: the only randomness used is the raw output of a bit
generator, which NumPy keeps stable across versions, and integer arithmetic on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from .errors import InvalidInputError

MASK_KINDS = ("random_walk", "brush", "box")

# The two ends of each bucket in which results are reported; a bucket holds [low, high), the last one is closed.
RATIO_BUCKETS = ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))

_RATIO_TOLERANCE = 0.02  # of brush_mask and box_mask


class RawRandom:
    """Integers and unit floats made from the raw 64-bit output of Philox, keyed by a tuple of plain values."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()[:16]
        self._bits = np.random.Philox(key=int.from_bytes(digest, "little"))

    def words(self, number: int) -> np.ndarray:
        """`number` raw uint64."""
        return self._bits.random_raw(number)

    def unit(self) -> float:
        """A float in [0, 1)."""
        return int(self._bits.random_raw() >> 11) / 2.0**53

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.unit()

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + int(self._bits.random_raw() % (high - low + 1))


def _check(height: int, width: int, ratio: float, seed: int) -> tuple[int, int, float, int]:
    """The arguments of a mask as plain numbers: NumPy's would be other keys, and others in each version of NumPy."""
    if height < 1 or width < 1:
        raise InvalidInputError(f"A mask needs a height and a width of at least 1, not {height} x {width}.")
    if not 0 < ratio < 1:
        raise InvalidInputError(f"The ratio of missing pixels must lie between 0 and 1, not {ratio}.")
    return int(height), int(width), float(ratio), int(seed)


def random_walk_mask(height: int, width: int, ratio: float, seed: int) -> np.ndarray:
    """The paper's mask (Section 4.1): one random walk in the 4-neighbourhood until enough pixels were visited.

    A step off the image is drawn again.

    Args:
        ratio: share of missing pixels, in (0, 1).

    Returns:
        bool (height, width), True = repaint, with exactly `round(ratio * height * width)` True (at least one).
    """
    height, width, ratio, seed = _check(height, width, ratio, seed)
    random = RawRandom("random_walk", height, width, ratio, seed)
    target = max(1, round(ratio * height * width))
    # Unfolded: a free walk on the whole grid, folded back at the borders like a strip of paper. A step off the image
    # folds onto the pixel that it started from, so it visits nothing new and the next draw replaces it: the same walk,
    # without a loop over its steps.
    row, column = random.integer(0, height - 1), random.integer(0, width - 1)
    visited = np.zeros(height * width, dtype=bool)
    visited[row * width + column] = True
    missing = target - 1
    first_visit = np.empty(height * width, dtype=np.int32)
    while missing > 0:
        # 32 steps of two bits in each word: one bit for the axis, one for the sign.
        words = random.words(max(64, min(4096, missing // 8)))
        bits = (words.astype("<u8").view(np.uint8)[:, None] >> np.arange(0, 8, 2, dtype=np.uint8)).reshape(-1) & 3
        sign = (bits & 2).astype(np.int32) - 1
        vertical = (bits & 1).astype(np.int32)
        rows = np.cumsum(sign * vertical, dtype=np.int32) + row
        columns = np.cumsum(sign * (1 - vertical), dtype=np.int32) + column
        pixels = _fold(rows, height) * width + _fold(columns, width)
        row, column = int(rows[-1]), int(columns[-1])
        fresh = np.flatnonzero(~visited[pixels])
        if not len(fresh):
            continue
        # The step of each new pixel's first visit: written backwards, so that the earliest one stays.
        first_visit[pixels[fresh[::-1]]] = fresh[::-1]
        earliest = fresh[first_visit[pixels[fresh]] == fresh][:missing]
        visited[pixels[earliest]] = True
        missing -= len(earliest)
    return visited.reshape(height, width)


def _fold(position: np.ndarray, size: int) -> np.ndarray:
    """A position on the unbounded line as one in [0, size), reflected between pixels at both ends."""
    position = position % (2 * size)
    return np.minimum(position, 2 * size - 1 - position)


def brush_mask(height: int, width: int, ratio: float, seed: int) -> np.ndarray:
    """Round brush strokes of changing direction, like those a person paints.

    Returns:
        bool (height, width), True = repaint, the share of True within 0.02 of `ratio` (or one pixel, if that is more).
    """
    height, width, ratio, seed = _check(height, width, ratio, seed)
    random = RawRandom("brush", height, width, ratio, seed)
    mask = np.zeros((height, width), dtype=bool)
    target = max(1, round(ratio * height * width))
    short_side = min(height, width)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    while np.count_nonzero(mask) < target:
        # A stroke: its dots follow each other at half a radius, in a direction that drifts.
        radius = max(0.5, short_side * random.uniform(0.02, 0.07))
        row, column = random.uniform(0, height), random.uniform(0, width)
        angle = random.integer(0, 255)
        turn = random.integer(-6, 6)
        for _ in range(random.integer(8, 40)):
            top, bottom = max(0, int(row - radius)), min(height, int(row + radius) + 2)
            left, right = max(0, int(column - radius)), min(width, int(column + radius) + 2)
            if top < bottom and left < right:
                dot = (rows[top:bottom] - row) ** 2 + (columns[:, left:right] - column) ** 2 <= radius**2
                excess = np.count_nonzero(mask) + np.count_nonzero(dot & ~mask[top:bottom, left:right]) - target
                if excess > 0:
                    # The last dot overshoots: it keeps only its first new pixels.
                    fresh = np.flatnonzero(dot & ~mask[top:bottom, left:right])
                    dot.reshape(-1)[fresh[len(fresh) - excess :]] = False
                mask[top:bottom, left:right] |= dot
                if excess >= 0:
                    return mask
            if random.integer(0, 7) == 0:
                turn = random.integer(-6, 6)
            angle = (angle + turn) % 256
            row += _SINE[angle] * radius / 2
            column += _SINE[(angle + 64) % 256] * radius / 2
    return mask


def _sine_table() -> np.ndarray:
    """A full wave in 256 steps, rounded so that a platform's own sine can't move a mask's pixel."""
    return np.round(np.sin(np.arange(256) * (2 * np.pi / 256)), 6)


_SINE = _sine_table()


def box_mask(height: int, width: int, ratio: float, seed: int) -> np.ndarray:
    """One to four axis-parallel boxes, which may overlap.

    Returns:
        bool (height, width), True = repaint, the share of True within 0.02 of `ratio` (or one row or column of a box,
        where the image is so small that this is more).
    """
    height, width, ratio, seed = _check(height, width, ratio, seed)
    random = RawRandom("box", height, width, ratio, seed)
    mask = np.zeros((height, width), dtype=bool)
    target = ratio * height * width
    boxes = random.integer(1, 4)
    while True:
        missing = target - np.count_nonzero(mask)
        if missing <= max(1.0, _RATIO_TOLERANCE / 2 * height * width):
            return mask
        # Equal shares for the boxes still to come; what overlaps cost is made up by the last ones.
        area = missing / max(1, boxes)
        boxes -= 1
        aspect = 2.0 ** round(random.uniform(-1, 1), 3)
        box_height = min(height, max(1, round((area * aspect) ** 0.5)))
        box_width = min(width, max(1, round(area / box_height)))
        top = random.integer(0, height - box_height)
        left = random.integer(0, width - box_width)
        mask[top : top + box_height, left : left + box_width] = True


MaskFunction = Callable[[int, int, float, int], np.ndarray]

_FUNCTIONS: dict[str, MaskFunction] = {"random_walk": random_walk_mask, "brush": brush_mask, "box": box_mask}


def make_mask(kind: str, height: int, width: int, ratio: float, seed: int) -> np.ndarray:
    """The mask of a kind in `MASK_KINDS`: bool (height, width), True = repaint."""
    if kind not in _FUNCTIONS:
        raise InvalidInputError(f"There is no mask kind {kind!r}; choose one of {', '.join(MASK_KINDS)}.")
    return _FUNCTIONS[kind](height, width, ratio, seed)


def in_bucket(ratio: float, bucket: tuple[float, float]) -> bool:
    """Whether a share of missing pixels belongs to `bucket`."""
    low, high = bucket
    return low <= ratio < high or (bucket == RATIO_BUCKETS[-1] and ratio == high)


def ratio_in_bucket(bucket: tuple[float, float], *key: object) -> float:
    """A ratio drawn from [low, high) of `bucket`, the same for the same key."""
    low, high = float(bucket[0]), float(bucket[1])
    return RawRandom("ratio", low, high, *key).uniform(low, high)

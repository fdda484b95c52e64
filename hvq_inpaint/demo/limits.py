"""What one visitor may ask of a machine that all of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import InvalidInputError

MOST_RESULTS = 4
LARGEST_SEED = 2**31 - 1
MOST_PIXELS_GROWN = 64  # of `dilate` and of `feather`

# The strategy `original` takes the whole photograph in one pass, about a gigabyte for each megapixel.
ORIGINAL_MEGAPIXELS = 2


@dataclass(frozen=True)
class Limits:
    """What the operator of a page allows."""

    megapixels: float = 25.0  # of a photograph
    seconds: float = 120.0  # for one fill
    queue: int = 16  # requests that may wait, of all visitors together

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:  # false for NaN too
                raise InvalidInputError(f"The limit {field.name} must be a finite number above 0, not {value:g}.")

    @property
    def file_bytes(self) -> int:
        """Of an upload. The editor sends photographs as PNG with alpha: four bytes a pixel where nothing is packed."""
        return round(self.megapixels * 4.1e6) + 1_000_000

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is too large, before it is decoded.

        Raises:
            InvalidInputError: it is.
        """
        if width * height > self.megapixels * 1e6:
            raise InvalidInputError(
                f"The picture has {_megapixels(width, height)} megapixels, and this page takes up to "
                f"{self.megapixels:g}: reduce it, or fill it on the command line."
            )

    def check_strategy(self, strategy: str, width: int, height: int) -> None:
        """Refuse a strategy that would need too much memory.

        Raises:
            InvalidInputError: it would.
        """
        if strategy == "original" and width * height > ORIGINAL_MEGAPIXELS * 1e6:
            raise InvalidInputError(
                f"The strategy original takes photographs of up to {ORIGINAL_MEGAPIXELS} megapixels here, and this one "
                f"has {_megapixels(width, height)}: choose auto, crop or resize."
            )


def _megapixels(width: int, height: int) -> float:
    """To one decimal, upwards: what is too large by a little does not look as if it were not."""
    return math.ceil(width * height / 1e5) / 10

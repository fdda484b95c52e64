"""Photographs that come with the package, to try it on and to show what a model makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from ..errors import InvalidInputError
from ..masks import make_mask


@dataclass(frozen=True)
class Example:
    """A photograph that comes with the package, and a mask that suits it."""

    name: str
    caption: str  # what it is and where it is from
    mask_kind: str
    mask_ratio: float
    mask_seed: int

    @property
    def path(self) -> Path:
        return Path(__file__).parent / f"{self.name}.jpg"


EXAMPLES = (
    Example("coffee", "Coffee, by Rachel Michetti (CC0)", "brush", 0.12, 3),
    Example("chelsea", "Chelsea, by Stefan van der Walt (CC0)", "random_walk", 0.3, 1),
    Example("rocket", "Rockets, by SpaceX (public domain)", "box", 0.1, 5),
    Example("astronaut", "Eileen Collins, by NASA (public domain)", "brush", 0.1, 4),
)


def load_example(name: str = "coffee", side: int | None = None) -> tuple[Image.Image, Image.Image]:
    """A photograph, RGB, and a mask of its size, white = repaint, to call `inpaint` with.

    Args:
        name: `coffee`, `chelsea`, `rocket` or `astronaut`.
        side: the central square, reduced to so many pixels; None: the whole photograph.

    Raises:
        InvalidInputError: there is no example of that name, or the side is not positive.
    """
    by_name = {example.name: example for example in EXAMPLES}
    if name not in by_name:
        raise InvalidInputError(f"There is no example {name!r}; choose one of {', '.join(by_name)}.")
    if side is not None and side < 1:
        raise InvalidInputError(f"side must be at least 1 pixel, not {side}.")
    example = by_name[name]
    with Image.open(example.path) as file:
        photograph = file.convert("RGB")
    if side is not None:
        photograph = ImageOps.fit(photograph, (side, side), Image.Resampling.LANCZOS)
    mask = make_mask(example.mask_kind, photograph.height, photograph.width, example.mask_ratio, example.mask_seed)
    return photograph, Image.fromarray(mask).convert("L")

"""Make the pictures of the README and of the model card with the bundled model: `python docs/make_pictures.py`.

The photographs come with scikit-image: coffee (by Rachel Michetti, CC0), chelsea (by Stefan van der Walt, CC0), rocket
(SpaceX, public domain), astronaut (NASA, public domain), text (from Wikipedia, public domain) and brick (CC0 Textures,
CC0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from hvq_inpaint import HVQInpainter
from hvq_inpaint.masks import make_mask
from hvq_inpaint.visualize import labelled_grid, stage_pictures

ROOT = Path(__file__).resolve().parent.parent
SIDE = 256


@dataclass(frozen=True)
class Example:
    """A square of a photograph and the mask that it gets."""

    photograph: Callable[[], np.ndarray]
    square: tuple[int, int, int]  # top, left and side in pixels
    mask_kind: str
    ratio: float
    seed: int


RESULTS = {
    "brush": Example(data.coffee, (0, 100, 400), "brush", 0.15, 3),
    "random walk": Example(data.chelsea, (0, 80, 300), "random_walk", 0.3, 1),
    "box": Example(data.rocket, (0, 100, 427), "box", 0.12, 5),
}
FAILURES = {
    "a face": Example(data.astronaut, (0, 100, 256), "brush", 0.25, 4),
    "text": Example(data.text, (0, 130, 172), "brush", 0.2, 2),
    "texture": Example(data.brick, (0, 0, 384), "box", 0.25, 1),
}


def stages_of(model: HVQInpainter, example: Example) -> dict[str, Image.Image]:
    """Every stage of the fill as a picture of `SIDE` pixels, and the original."""
    top, left, side = example.square
    original = Image.fromarray(example.photograph()[top : top + side, left : left + side]).convert("RGB")
    original = original.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    mask = make_mask(example.mask_kind, SIDE, SIDE, example.ratio, example.seed)
    result = model.inpaint(original, mask)
    assert np.array_equal(np.array(result.image)[~mask], np.array(original)[~mask])
    pictures = stage_pictures(result.stages, model.config.num_codes)
    shown = {name: picture.resize((SIDE, SIDE), Image.Resampling.NEAREST) for name, picture in pictures.items()}
    return {**shown, "original": original}


def make_sheet(model: HVQInpainter, examples: dict[str, Example], columns: dict[str, str], path: Path) -> None:
    """Write a sheet: a row for each example, `columns` as title by stage."""
    rows = {}
    for title, example in examples.items():
        pictures = stages_of(model, example)
        rows[title] = [pictures[stage] for stage in columns]
    labelled_grid(rows, list(columns.values())).save(path, quality=90)


def main() -> None:
    model = HVQInpainter.from_pretrained(ROOT / "hub" / "model")
    titles = {
        "damaged": "damaged",
        "global_codes": "global codes",
        "local_codes": "local codes",
        "credibility": "credibility",
        "coarse": "VQ result",
        "composite": "result",
        "original": "original",
    }
    make_sheet(model, RESULTS, titles, ROOT / "docs" / "result.jpg")
    short = {name: titles[name] for name in ("damaged", "coarse", "composite", "original")}
    make_sheet(model, FAILURES, short, ROOT / "hub" / "model" / "failures.jpg")


if __name__ == "__main__":
    main()

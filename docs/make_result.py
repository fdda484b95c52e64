"""Make the README's picture, docs/result.jpg, with the bundled model: `python docs/make_result.py`.

The photographs come with scikit-image: coffee (by Rachel Michetti, CC0), chelsea (by Stefan van der Walt, CC0) and
rocket (SpaceX, public domain).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from hvq_inpaint import HVQInpainter
from hvq_inpaint.masks import make_mask
from hvq_inpaint.visualize import labelled_grid, stage_pictures

ROOT = Path(__file__).resolve().parent.parent
SIDE = 256

# Photograph, the square to show (top, left, side), mask kind, ratio and seed.
ROWS = (
    (data.coffee, (0, 100, 400), "brush", 0.15, 3),
    (data.chelsea, (0, 80, 300), "random_walk", 0.3, 1),
    (data.rocket, (0, 100, 427), "box", 0.12, 5),
)
COLUMNS = {
    "damaged": "damaged",
    "global_codes": "global codes",
    "local_codes": "local codes",
    "credibility": "credibility",
    "coarse": "VQ result",
    "composite": "result",
}


def main() -> None:
    model = HVQInpainter.from_pretrained(ROOT / "hub" / "model")
    rows = {}
    for photograph, (top, left, side), kind, ratio, seed in ROWS:
        square = Image.fromarray(photograph()[top : top + side, left : left + side])
        square = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        mask = make_mask(kind, SIDE, SIDE, ratio, seed)
        result = model.inpaint(square, mask)
        assert np.array_equal(np.array(result.image)[~mask], np.array(square)[~mask])
        pictures = stage_pictures(result.stages, model.config.num_codes)
        shown = [*(pictures[name] for name in COLUMNS), square]
        rows[kind.replace("_", " ")] = [picture.resize((SIDE, SIDE), Image.Resampling.NEAREST) for picture in shown]
    sheet = labelled_grid(rows, [*COLUMNS.values(), "original"])
    sheet.save(ROOT / "docs" / "result.jpg", quality=90)


if __name__ == "__main__":
    main()

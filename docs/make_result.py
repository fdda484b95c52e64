"""Make the README's picture, docs/result.jpg, with the bundled model: `python docs/make_result.py`.

The photographs come with scikit-image: coffee (by Rachel Michetti, CC0), chelsea (by Stefan van der Walt, CC0) and
rocket (SpaceX, public domain).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from hvq_inpaint import HVQInpainter
from hvq_inpaint.masks import make_mask
from hvq_inpaint.visualize import stage_pictures

ROOT = Path(__file__).resolve().parent.parent
SIDE, TITLE_HEIGHT, GAP = 256, 22, 4

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
    width, height = (len(COLUMNS) + 1) * (SIDE + GAP) - GAP, TITLE_HEIGHT + len(ROWS) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (photograph, (top, left, side), kind, ratio, seed) in enumerate(ROWS):
        square = Image.fromarray(photograph()[top : top + side, left : left + side])
        square = square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        mask = make_mask(kind, SIDE, SIDE, ratio, seed)
        result = model.inpaint(square, mask)
        assert np.array_equal(np.array(result.image)[~mask], np.array(square)[~mask])
        pictures = stage_pictures(result.stages, model.config.num_codes)
        shown = {**{title: pictures[name] for name, title in COLUMNS.items()}, "original": square}
        for column, (title, picture) in enumerate(shown.items()):
            x = column * (SIDE + GAP)
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, TITLE_HEIGHT + row * (SIDE + GAP)))
            draw.text((x + SIDE / 2, TITLE_HEIGHT / 2), title, fill="black", anchor="mm", font_size=14)
    sheet.save(ROOT / "docs" / "result.jpg", quality=90)


if __name__ == "__main__":
    main()

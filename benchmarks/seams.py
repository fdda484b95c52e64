"""How visible the border of a fill is: `python benchmarks/seams.py DATASET`.

For each photograph and each kind of mask, one mask of a share between 10 and 60 % is filled. Printed is the mean step
of colour (mean absolute difference of the channels, 0 to 255) between known and filled pixels that are neighbours, the
same in the true image, and the ratio: 1 is no border to be seen, more is a seam, less a blur. Photographs are taken
whole, at their own size; all pairs of pixels of all photographs count alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hvq_inpaint import HVQInpainter
from hvq_inpaint.data import list_images, spread
from hvq_inpaint.images import load_photograph
from hvq_inpaint.masks import MASK_KINDS, make_mask
from hvq_inpaint.metrics import border_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a folder of photographs")
    parser.add_argument("--model", default="hub/model", help="a model folder (default: %(default)s)")
    parser.add_argument("--feather", type=int, default=0, help="of inpaint (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="use so many photographs, spread evenly (default: all)")
    options = parser.parse_args()
    model = HVQInpainter.from_pretrained(options.model)
    paths = list_images(options.dataset)
    if options.limit is not None:
        paths = [paths[index] for index in spread(len(paths), options.limit)]
    print(f"{len(paths)} photographs, feather {options.feather}\n")
    print("| mask | step, filled | step, true | ratio |\n|---|---:|---:|---:|")
    for kind in MASK_KINDS:
        filled_sum = true_sum = pairs = 0.0
        for index, path in enumerate(paths):
            true = load_photograph(path).pixels()
            ratio = 0.1 + 0.5 * (index % 11) / 10
            mask = make_mask(kind, *true.shape[:2], ratio, index)
            filled = np.array(model.inpaint(true, mask, feather=options.feather).image)
            total, number = border_step(filled, mask)
            filled_sum, pairs = filled_sum + total, pairs + number
            true_sum += border_step(true, mask)[0]
        figures = f"{filled_sum / pairs:.2f} | {true_sum / pairs:.2f} | {filled_sum / true_sum:.3f}"
        print(f"| {kind} | {figures} |", flush=True)


if __name__ == "__main__":
    main()

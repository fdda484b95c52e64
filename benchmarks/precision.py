"""What bfloat16 costs: `python benchmarks/precision.py DATASET`.

The central 256 x 256 pixels of each photograph, of which a mask of each kind hides 30 %, are filled in float32 and in
bfloat16. Printed are the means of PSNR in the hole, of the difference between the two fills there (grey levels, 0 to
255), and the shares of codes that differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from hvq_inpaint import HVQInpainter
from hvq_inpaint.data import list_images, spread
from hvq_inpaint.evaluation.samples import evaluation_crop
from hvq_inpaint.masks import MASK_KINDS, make_mask
from hvq_inpaint.metrics import psnr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a folder of photographs")
    parser.add_argument("--model", default="hub/model", help="a model folder (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=40, help="photographs, spread evenly (default: %(default)s)")
    options = parser.parse_args()
    model = HVQInpainter.from_pretrained(options.model)
    paths = list_images(options.dataset)
    paths = [paths[index] for index in spread(len(paths), options.limit)]
    print(f"{len(paths)} photographs\n")
    print("| mask | float32: PSNR (dB) | bfloat16 | difference | global codes | local codes |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in MASK_KINDS:
        figures = []
        for index, path in enumerate(paths):
            true, mask = evaluation_crop(path, 256), make_mask(kind, 256, 256, 0.3, index)
            results = [
                model.inpaint(true, mask, output_type="torch", precision=precision)
                for precision in ("float32", "bfloat16")
            ]
            target = torch.from_numpy(true).permute(2, 0, 1)[None].float() / 255
            hole = torch.from_numpy(mask)
            figures.append(
                [float(psnr(result.image[None], target, hole[None, None])) for result in results]
                + [float((results[0].image - results[1].image)[:, hole].abs().mean()) * 255]
                + [
                    float(np.mean(results[0].stages[name] != results[1].stages[name]))
                    for name in ("global_codes", "local_codes")
                ]
            )
        means = np.mean(figures, axis=0)
        print(
            f"| {kind} | {means[0]:.2f} | {means[1]:.2f} | {means[2]:.2f} | {means[3]:.1%} | {means[4]:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

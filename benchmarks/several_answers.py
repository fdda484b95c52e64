"""How different several answers are, and how good: `python benchmarks/several_answers.py DATASET`.

In the central 256 x 256 pixels of each photograph, a hole of 112 x 112 pixels gets four answers, for several values of
`sampling.SPREAD`. Printed are, between answers, the mean difference in the hole (grey levels, 0 to 255) and LPIPS; then
LPIPS of the whole picture and PSNR of the hole against the true one, of the first answer and, as a mean, of the others.
LPIPS is version 0.1 with AlexNet. The last line is the time of a further answer as a share of the first one's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from hvq_inpaint import HVQInpainter
from hvq_inpaint.data import list_images, spread
from hvq_inpaint.evaluation.samples import evaluation_crop
from hvq_inpaint.metrics import LPIPS, load_lpips, psnr

SPREADS = (0.5, 1.0, 2.0, 4.0)
ANSWERS = 4

MASK = np.zeros((256, 256), dtype=bool)
MASK[72:184, 72:184] = True


def measure(answers: Sequence[torch.Tensor], true: torch.Tensor, lpips: LPIPS) -> list[float]:
    """The six figures of one photograph; pictures (3, 256, 256) in [0, 1]."""
    missing = torch.from_numpy(MASK)
    pairs = list(combinations(answers, 2))
    to_true = [float(lpips(answer[None], true[None])) for answer in answers]
    of_hole = [float(psnr(answer[None], true[None], missing[None, None])) for answer in answers]
    return [
        statistics.mean(float((one - other)[:, missing].abs().mean()) * 255 for one, other in pairs),
        statistics.mean(float(lpips(one[None], other[None])) for one, other in pairs),
        to_true[0],
        statistics.mean(to_true[1:]),
        of_hole[0],
        statistics.mean(of_hole[1:]),
    ]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a folder of photographs")
    parser.add_argument("--model", default="hub/model", help="a model folder (default: %(default)s)")
    parser.add_argument("--lpips-weights", help="AlexNet as safetensors (default: torchvision's own download)")
    parser.add_argument("--limit", type=int, default=40, help="photographs, spread evenly (default: %(default)s)")
    options = parser.parse_args()
    model = HVQInpainter.from_pretrained(options.model)
    lpips = load_lpips(options.lpips_weights)
    paths = list_images(options.dataset)
    chosen = spread(len(paths), options.limit)
    photographs = [evaluation_crop(paths[index], 256) for index in chosen]
    print(f"{len(photographs)} photographs, {ANSWERS} answers, seed 0, precision float32\n")
    print("| spread | between: difference | LPIPS | true: LPIPS, first | others | PSNR (dB), first | others |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    shares = []
    for factor in SPREADS:
        figures = []
        with patch("hvq_inpaint.sampling.SPREAD", factor):
            for pixels in photographs:
                steps = [time.perf_counter()]
                result = model.inpaint(
                    pixels,
                    MASK,
                    num_results=ANSWERS,
                    output_type="torch",
                    precision="float32",
                    callback=lambda *_, steps=steps: steps.append(time.perf_counter()),
                )
                first, *others = np.diff(steps)
                shares.append(statistics.mean(others) / first)
                true = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
                figures.append(measure(result.images, true, lpips))
        means = np.mean(figures, axis=0)
        print(
            f"| {factor:g} | {means[0]:.1f} | {means[1]:.4f} | {means[2]:.4f} | {means[3]:.4f} | {means[4]:.2f} | "
            f"{means[5]:.2f} |",
            flush=True,
        )
    print(f"\nA further answer takes {statistics.median(shares):.2f} of the time of the first (median).")


if __name__ == "__main__":
    main()

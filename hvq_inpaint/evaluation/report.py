"""An `Evaluation` as JSON for programs and as Markdown for people. Nothing here writes a file."""

from __future__ import annotations

import json
from typing import Any

from .baselines import OPENCV_RADIUS
from .evaluate import METRICS, PSNR_LIMIT, Evaluation, bucket_name

METHOD_TITLES = {
    "damaged": "damaged input",
    "telea": "OpenCV Telea",
    "navier_stokes": "OpenCV Navier-Stokes",
    "coarse": "coarse",
    "blended": "coarse, blended",
    "refined": "refined",
    "oracle": "oracle",
}

_METRIC_TITLES = {
    "psnr": "PSNR (dB)",
    "psnr_hole": "PSNR in the hole (dB)",
    "ssim": "SSIM",
    "l1": "L1",
    "l1_hole": "L1 in the hole",
}

_METRIC_FORMATS = {"psnr": ".2f", "psnr_hole": ".2f", "ssim": ".4f", "l1": ".4f", "l1_hole": ".4f"}


def to_json(evaluation: Evaluation, model: str, dataset: str, device: str) -> str:
    """All settings, versions and figures; `model`, `dataset` and `device` as the caller named them."""
    options = evaluation.options
    document: dict[str, Any] = {
        "settings": {
            "model": model,
            "dataset": dataset,
            "mask_kinds": list(options.mask_kinds),
            "buckets_percent": [bucket_name(bucket) for bucket in options.buckets],
            "size": options.size,
            "seed": options.seed,
            "limit": options.limit,
            "batch_size": options.batch_size,
            "device": device,
            "opencv_radius": OPENCV_RADIUS if options.opencv else None,
            "psnr_limit": PSNR_LIMIT,
        },
        "versions": evaluation.versions,
        "number_of_images": evaluation.number_of_images,
        "codebooks": evaluation.codebooks,
        "hole_shares": evaluation.hole_shares,
        "figures": evaluation.figures,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def to_markdown(evaluation: Evaluation, model: str, dataset: str, device: str) -> str:
    """The settings in words, the means over the buckets, and one table for each mask kind."""
    options = evaluation.options
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    codebooks = "; ".join(
        f"{level} {values['usage']:.1%} used, perplexity {values['perplexity']:.1f}"
        for level, values in evaluation.codebooks.items()
    )
    opencv = f" OpenCV's methods with radius {OPENCV_RADIUS}." if options.opencv else ""
    parts = [
        f"# Evaluation of {model}",
        f"Settings: {evaluation.number_of_images} images of {dataset}, central {options.size} x {options.size} pixels, "
        f"one mask for each image, mask kind and bucket, seed {options.seed}, "
        f"batches of {options.batch_size} on {device}.{opencv} Versions: {versions}.",
        "Every figure is a mean of per-image values, on composites with the known pixels, rounded to 8 bits. "
        "PSNR and L1 in the hole count the missing pixels only. L1 is on pixels in [0, 1]. "
        f"An exact fill counts as {PSNR_LIMIT:g} dB. "
        "Coarse: the VQ stage alone; coarse, blended (if the model does that): the same by Poisson blending, which is "
        "what the refiner gets; refined: the whole network; oracle: the true codes through the decoder, the ceiling of "
        "coarse.",
        f"Codebooks on the intact images: {codebooks}.",
        "## Mean over the buckets",
        summary(evaluation),
    ]
    for kind in options.mask_kinds:
        parts += [f"## Masks: {kind}", _table_of_kind(evaluation, kind)]
    return "\n\n".join(parts) + "\n"


def summary(evaluation: Evaluation) -> str:
    """A Markdown table of the means over the buckets: a row for each mask kind and method, a column for each metric."""
    rows = [
        [
            kind,
            METHOD_TITLES[method],
            *(format(by_bucket["mean"][metric], _METRIC_FORMATS[metric]) for metric in METRICS),
        ]
        for kind, methods in evaluation.figures.items()
        for method, by_bucket in methods.items()
    ]
    return _table(["masks", "method", *(_METRIC_TITLES[metric] for metric in METRICS)], rows)


def _table_of_kind(evaluation: Evaluation, kind: str) -> str:
    """A row for each metric and method, a column for each bucket and one for their mean."""
    buckets = [bucket_name(bucket) for bucket in evaluation.options.buckets]
    rows = [
        [
            _METRIC_TITLES[metric],
            METHOD_TITLES[method],
            *(format(by_bucket[name][metric], _METRIC_FORMATS[metric]) for name in [*buckets, "mean"]),
        ]
        for metric in METRICS
        for method, by_bucket in evaluation.figures[kind].items()
    ]
    return _table(["metric", "method", *(f"{name} %" for name in buckets), "mean"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, its first two columns text and the others figures, aligned for the eye as well."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])

"""An `Evaluation` as JSON for programs and as Markdown for people. Nothing here writes a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .baselines import OPENCV_METHODS, OPENCV_RADIUS
from .evaluate import PSNR_LIMIT, Evaluation
from .methods import method_title
from .options import METRICS, SET_METRICS, bucket_name
from .paper import QUOTED_TABLES, QuotedTable

METRIC_TITLES = {
    "psnr": "PSNR (dB)",
    "psnr_hole": "PSNR in the hole (dB)",
    "ssim": "SSIM",
    "l1": "L1",
    "l1_hole": "L1 in the hole",
    "lpips": "LPIPS",
    "fid": "FID",
    "fd": "FD (AlexNet)",
}

INCEPTION_FEATURES = "Inception's 2048"
ALEXNET_FEATURES = "AlexNet's 256 (conv5 after its ReLU, mean over the pixels)"

METRIC_FORMATS = {
    "psnr": ".2f",
    "psnr_hole": ".2f",
    "ssim": ".4f",
    "l1": ".4f",
    "l1_hole": ".4f",
    "lpips": ".4f",
    "fid": ".2f",
    "fd": ".2f",
}


def to_json(evaluation: Evaluation, model: str, dataset: str, device: str, **others: str | None) -> str:
    """All settings, versions and figures; `model`, `dataset`, `device` and `others` as the caller named them."""
    options = evaluation.options
    document: dict[str, Any] = {
        "settings": {
            "model": model,
            "dataset": dataset,
            **others,
            "mask_kinds": list(options.mask_kinds),
            "mask_folder": options.mask_folder,
            "buckets_percent": [bucket_name(bucket) for bucket in options.buckets],
            "size": options.size,
            "seed": options.seed,
            "limit": options.limit,
            "batch_size": options.batch_size,
            "device": device,
            "metrics": list(options.metrics),
            "methods": list(options.methods) if options.methods is not None else None,
            "lpips": "version 0.1, AlexNet" if "lpips" in options.metrics else None,
            "fid_features": INCEPTION_FEATURES if "fid" in options.metrics else None,
            "fd_features": ALEXNET_FEATURES if "fd" in options.metrics else None,
            "opencv_radius": OPENCV_RADIUS if options.opencv else None,
            "outputs": list(options.outputs),
            "psnr_limit": PSNR_LIMIT,
        },
        "versions": evaluation.versions,
        "sha256_of_weights": evaluation.weights,
        "number_of_images": evaluation.number_of_images,
        "left_out": evaluation.left_out,
        "codebooks": evaluation.codebooks,
        "hole_shares": evaluation.hole_shares,
        "credibility": _without_nan(evaluation.credibility),
        "figures": _without_nan(evaluation.figures),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def to_markdown(evaluation: Evaluation, model: str, dataset: str, device: str) -> str:
    """The settings in words, the means over the buckets, a table for each mask kind, and the paper's figures."""
    options = evaluation.options
    versions = ", ".join(f"{name} {version}" for name, version in evaluation.versions.items())
    codebooks = "; ".join(
        f"{level} {values['usage']:.1%} used, perplexity {values['perplexity']:.1f}"
        for level, values in evaluation.codebooks.items()
    )
    opencv = f" OpenCV's methods with radius {OPENCV_RADIUS}." if options.opencv else ""
    mask_files = f" Masks of kind files are those of {options.mask_folder}." if options.mask_folder else ""
    parts = [
        f"# Evaluation of {model}",
        f"Settings: {evaluation.number_of_images} images of {dataset}, central {options.size} x {options.size} pixels, "
        f"one mask for each image, mask kind and bucket, seed {options.seed}, "
        f"batches of {options.batch_size} on {device}.{opencv}{mask_files} Versions: {versions}.",
        "Every figure but FID and FD is a mean of per-image values; all are of composites with the known pixels, "
        "rounded to 8 bits. "
        "PSNR and L1 in the hole count the missing pixels only. L1 is on pixels in [0, 1]. "
        f"An exact fill counts as {PSNR_LIMIT:g} dB. "
        "Laplace's equation: its solution in the hole, as smooth as can be, which knows nothing of pictures; "
        "coarse: the VQ stage alone; coarse, blended (if the model does that): the same by Poisson blending, which is "
        "what the refiner gets; refined: the whole network; coarse, true global codes: what coarse were if EncoderB1 "
        "knew all global codes (the local ones follow from them and from the damaged image's F_mid); oracle: all true "
        "codes through the decoder, the ceiling of coarse.",
        *network_notes(options.metrics, evaluation.number_of_images, evaluation.left_out),
        f"Codebooks on the intact images: {codebooks}.",
        "## Mean over the buckets",
        summary(evaluation),
    ]
    if options.opencv and options.methods is None and (gains := gains_table(evaluation.figures)):
        parts += [
            "## Against the better of OpenCV's two methods",
            "Means over the buckets, each metric against the method that is better in it.",
            gains,
        ]
    for kind in options.mask_kinds:
        parts += [f"## Masks: {kind}", _table_of_kind(evaluation, kind)]
    parts += [
        "## Credibility and true error",
        "Spearman's rank correlation, over the 8 x 8 cells that touch the hole, between the credibility map and the "
        "mean absolute error of the picture there; mean over the images whose map varies there. A map that knows where "
        "the fill is wrong has a clearly negative one; 0 says nothing.",
        _credibility_table(evaluation),
        "## The paper's figures",
        "Quoted as printed, for orientation only: measured by the paper's authors on other photographs, with their own "
        "models. Not to be compared with the tables above digit by digit. Table 2 (Places2) repeats Table 1 to the "
        "last digit, so there are no figures of Places2.",
    ]
    for table in QUOTED_TABLES:
        parts.append(quoted_markdown(table))
        if table.number == "Tables 4 and 5" and (own := _stages_table(evaluation)):
            parts += ["The same two of this model, on the photographs above:", own]
    return "\n\n".join(parts) + "\n"


def summary(evaluation: Evaluation) -> str:
    """A Markdown table of the means over the buckets: a row for each mask kind and method, a column for each metric."""
    metrics = _metrics(evaluation)
    rows = [
        [
            kind,
            method_title(method),
            *(format(by_bucket["mean"][metric], METRIC_FORMATS[metric]) for metric in metrics),
        ]
        for kind, methods in evaluation.figures.items()
        for method, by_bucket in methods.items()
    ]
    return markdown_table(["masks", "method", *(METRIC_TITLES[metric] for metric in metrics)], rows)


def gains_table(figures: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """What this model, and Laplace's equation if it was measured, gain over the better method of OpenCV; empty without
    these metrics.

    Args:
        figures: those of an `Evaluation`, or of its JSON, with the rows of OpenCV.

    Returns:
        A Markdown table: the difference of the PSNR in the hole, and LPIPS as a share of that method's.
    """
    first = next(iter(next(iter(figures.values())).values()))["mean"]
    metrics = [metric for metric in ("psnr_hole", "lpips") if metric in first]
    rows = []
    for kind, methods in figures.items():
        means = {method: by_bucket["mean"] for method, by_bucket in methods.items()}
        for method in (method for method in ("harmonic", "coarse", "refined") if method in means):
            cells = []
            if "psnr_hole" in metrics:
                best = max(means[name]["psnr_hole"] for name in OPENCV_METHODS)
                cells.append(f"{means[method]['psnr_hole'] - best:+.2f}")
            if "lpips" in metrics:
                best = min(means[name]["lpips"] for name in OPENCV_METHODS)
                cells.append(f"{means[method]['lpips'] / best:.2f}" if best else "none")
            rows.append([kind.replace("_", " "), method_title(method), *cells])
    titles = {"psnr_hole": "PSNR in the hole, gain (dB)", "lpips": "LPIPS, share of theirs"}
    return markdown_table(["masks", "method", *(titles[metric] for metric in metrics)], rows) if metrics else ""


def quoted_markdown(table: QuotedTable) -> str:
    """A table of the paper with its caption and notes."""
    rows = [list(row) for row in table.rows]
    return "\n\n".join([f"{table.number}: {table.caption}.", markdown_table(list(table.head), rows), *table.notes])


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
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


def _metrics(evaluation: Evaluation) -> list[str]:
    return [metric for metric in METRICS if metric in evaluation.options.metrics]


def network_notes(metrics: Sequence[str], number_of_images: int, left_out: dict[str, str]) -> list[str]:
    """A paragraph that says what LPIPS and the Fréchet distances are and what could not be had; none without these."""
    notes = []
    if "lpips" in metrics:
        notes.append("LPIPS: version 0.1 on AlexNet, whole image.")
    for metric, features in (("fid", INCEPTION_FEATURES), ("fd", ALEXNET_FEATURES)):
        if metric in metrics:
            notes.append(
                f"{METRIC_TITLES[metric]}: Fréchet distance of {features} features between the filled and the true "
                f"images, {number_of_images} of each; on so few it is biased upwards."
            )
    notes += [f"{METRIC_TITLES[metric]} left out: {reason}" for metric, reason in left_out.items()]
    return [" ".join(notes)] if notes else []


def _table_of_kind(evaluation: Evaluation, kind: str) -> str:
    """A row for each metric and method, a column for each bucket and one for their mean."""
    buckets = [bucket_name(bucket) for bucket in evaluation.options.buckets]
    rows = [
        [
            METRIC_TITLES[metric] + (f", {evaluation.number_of_images} images" if metric in SET_METRICS else ""),
            method_title(method),
            *(format(by_bucket[name][metric], METRIC_FORMATS[metric]) for name in [*buckets, "mean"]),
        ]
        for metric in _metrics(evaluation)
        for method, by_bucket in evaluation.figures[kind].items()
    ]
    return markdown_table(["metric", "method", *(f"{name} %" for name in buckets), "mean"], rows)


def _stages_table(evaluation: Evaluation) -> str:
    """The whole network and the VQ stage alone, as in Tables 4 and 5; empty where they were not measured."""
    buckets = [bucket_name(bucket) for bucket in evaluation.options.buckets]
    rows = [
        [
            f"{METRIC_TITLES[metric]}, {kind}",
            title,
            *(format(methods[method][name][metric], METRIC_FORMATS[metric]) for name in [*buckets, "mean"]),
        ]
        for metric in ("psnr", "ssim")
        if metric in evaluation.options.metrics
        for kind, methods in evaluation.figures.items()
        for method, title in (("refined", "whole network"), ("coarse", "VQ-VAE alone"))
        if method in methods
    ]
    return markdown_table(["metric, masks", "method", *(f"{name} %" for name in buckets), "mean"], rows) if rows else ""


def _credibility_table(evaluation: Evaluation) -> str:
    buckets = [bucket_name(bucket) for bucket in evaluation.options.buckets]
    rows = [
        [kind, method_title(method), *(format(by_name[name], ".2f") for name in [*buckets, "mean"])]
        for kind, methods in evaluation.credibility.items()
        for method, by_name in methods.items()
    ]
    return markdown_table(["masks", "error of", *(f"{name} %" for name in buckets), "mean"], rows)


def _without_nan(values: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    return None if isinstance(values, float) and math.isnan(values) else values

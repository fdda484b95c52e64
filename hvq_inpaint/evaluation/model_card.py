"""An evaluation as the results of a model card: a table for people, and the card's `model-index` for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from ..errors import InvalidInputError
from .baselines import OPENCV_METHODS
from .methods import method_title
from .report import METRIC_FORMATS, METRIC_TITLES, gains_table

EVALUATION_FILE = "evaluation.json"

# Of a card's tables and its model-index; evaluation.json has the others.
_METRICS = ("psnr_hole", "psnr", "ssim", "lpips")


def read_evaluation(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `evaluate` wrote into `folder`.

    Returns:
        The document as it may be published, of paths on this machine only the last part; and the facts that it tells
        for a card, `results` and `eval_results`.

    Raises:
        InvalidInputError: there is none, or it is none of an evaluation.
    """
    path = folder / EVALUATION_FILE if folder.is_dir() else folder
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        settings = document["settings"]
        for name in ("model", "dataset", "lpips_weights", "mask_folder"):
            value = settings.get(name)
            if isinstance(value, str) and (value.startswith((".", "/", "~")) or Path(value).exists()):
                settings[name] = Path(value).resolve().name
        settings.update(export=None, outputs=[Path(output).name for output in settings["outputs"]])
        return document, {"results": results_text(document), "eval_results": eval_results(document)}
    except FileNotFoundError:
        raise InvalidInputError(
            f"There is no {path}: measure the model first, with 'python -m hvq_inpaint evaluate MODEL --out {folder}'."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise InvalidInputError(
            f"{path} is no whole evaluation of hvq_inpaint ({type(error).__name__}: {str(error)[:80]})."
        ) from None


def eval_results(document: dict[str, Any]) -> list[EvalResult]:
    """The figures of the whole network: one result for each mask kind, bucket and metric."""
    settings = document["settings"]
    results = []
    for kind, methods in document["figures"].items():
        for bucket, figures in methods["refined"].items():
            mean = f"mean over the buckets {', '.join(settings['buckets_percent'])} %"
            ratio = mean if bucket == "mean" else f"{bucket} %"
            for metric in (metric for metric in _METRICS if metric in figures and math.isfinite(figures[metric])):
                results.append(
                    EvalResult(
                        task_type="image-to-image",
                        task_name="Image inpainting",
                        dataset_type=settings["dataset"],
                        dataset_name=f"{document['number_of_images']} images of {settings['dataset']}",
                        dataset_config=f"{kind}, {ratio}",
                        dataset_args={
                            "mask_kind": kind,
                            "mask_ratio": ratio,
                            "central_crop": settings["size"],
                            "seed": settings["seed"],
                        },
                        metric_type=metric.removesuffix("_hole"),
                        metric_name=METRIC_TITLES[metric],
                        metric_value=round(figures[metric], 4),
                        metric_args=_metric_args(metric, settings),
                    )
                )
    return results


def _metric_args(metric: str, settings: dict[str, Any]) -> dict[str, str]:
    """How a metric was computed."""
    return {
        "psnr_hole": {"region": "missing pixels", "pixels": "rounded to 8 bits"},
        "psnr": {"region": "whole composite", "pixels": "rounded to 8 bits"},
        "ssim": {"region": "whole composite", "pixels": "rounded to 8 bits"},
        "lpips": {"region": "whole composite", "network": str(settings.get("lpips"))},
    }[metric]


def results_text(document: dict[str, Any]) -> str:
    """The settings in sentences, a table of each metric, and what of it is not won."""
    settings, figures = document["settings"], document["figures"]
    present = next(iter(figures.values()))
    parts = []
    has_opencv = all(method in present for method in OPENCV_METHODS)
    if has_opencv and (gains := gains_table(figures)):
        parts.append(
            "What the whole network (refined) and the VQ stage alone (coarse) gain over the better of OpenCV's two "
            f"methods, means over the mask ratios:\n\n{gains}"
        )
    parts.append(_settings_text(document, present))
    for metric in ("psnr_hole", "lpips"):
        if metric in present["refined"]["mean"]:
            of = (
                "LPIPS (0.1, AlexNet), whole image, on the same composites" if metric == "lpips" else "PSNR in the hole"
            )
            parts.append(f"{of}:\n\n{bucket_table(document, metric)}")
    codebooks = "; ".join(
        f"{level} {values['usage']:.0%} used, perplexity {values['perplexity']:.0f}"
        for level, values in document["codebooks"].items()
    )
    verdict = f"{_verdict(document)} " if has_opencv and "psnr_hole" in settings["metrics"] else ""
    parts.append(
        f"{verdict}Codebooks on the intact photographs: {codebooks}. "
        f"All metrics are in [{EVALUATION_FILE}]({EVALUATION_FILE})."
    )
    return "\n\n".join(parts)


def _settings_text(document: dict[str, Any], methods: dict[str, Any]) -> str:
    """How the figures were measured, and what the rows are."""
    settings, versions = document["settings"], document["versions"]
    opencv = ""
    if settings.get("opencv_radius"):
        opencv = f", OpenCV's methods with radius {settings['opencv_radius']} (OpenCV {versions['opencv']})"
    sentences = [
        "Means of per-image values on composites rounded to 8 bits, PSNR in dB: "
        f"{document['number_of_images']} images of {settings['dataset']}, central {settings['size']} x "
        f"{settings['size']} pixels, one mask for each image and bucket (seed {settings['seed']}){opencv}."
    ]
    told = {
        "harmonic": "Laplace's equation is its solution in the hole: what is better than it is the network's merit.",
        "coarse": "Coarse is the VQ stage alone.",
        "blended": "Coarse, blended is the same by Poisson blending, which is what the refiner gets.",
        "refined": "Refined is the whole network.",
        "true_global": "Coarse, true global codes is what coarse were if EncoderB1 knew all global codes.",
        "oracle": "The oracle is the intact image's own codes through the decoder.",
    }
    return " ".join(sentences + [sentence for method, sentence in told.items() if method in methods])


def bucket_table(document: dict[str, Any], metric: str) -> str:
    """A metric by bucket, for each mask kind and method, in Markdown."""
    buckets = [*document["settings"]["buckets_percent"], "mean"]
    lines = [
        f"| masks | method | {' | '.join(name if name == 'mean' else f'{name} %' for name in buckets)} |",
        f"|---|---|{'---:|' * len(buckets)}",
    ]
    for kind, methods in document["figures"].items():
        for method, figures in methods.items():
            cells = " | ".join(format(figures[bucket][metric], METRIC_FORMATS[metric]) for bucket in buckets)
            lines.append(f"| {kind.replace('_', ' ')} | {method_title(method)} | {cells} |")
    return "\n".join(lines)


def _verdict(document: dict[str, Any]) -> str:
    """Which buckets are not won."""
    lost = []
    for kind, methods in document["figures"].items():
        for bucket in document["settings"]["buckets_percent"]:
            best = max(methods[name][bucket]["psnr_hole"] for name in OPENCV_METHODS)
            if methods["refined"][bucket]["psnr_hole"] <= best:
                lost.append(f"{kind.replace('_', ' ')} {bucket} %")
    if lost:
        return f"In PSNR not won against the better of OpenCV's two methods: {', '.join(lost)}."
    return "In PSNR every bucket is won against both of OpenCV's methods."

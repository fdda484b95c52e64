"""Figures of a model on photographs, by mask kind and bucket of mask ratios, beside other methods.

The photographs are measured batch by batch into records; the figures are made of the records alone. So an evaluation
can be broken off and continued, and shared out over processes, without changing a figure.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
import torchmetrics
from PIL import Image
from torch import nn
from torchmetrics.functional.regression import spearman_corrcoef
from tqdm import tqdm

from .. import __version__
from ..data import spread
from ..errors import InvalidInputError
from ..images import to_pixels, to_tensor
from ..inpainter import HVQInpainter, evaluating
from ..metrics import FrechetDistance, mean_l1, psnr, round_to_uint8, ssim
from ..quantizer import codebook_usage
from ..vqvae import VQVAEOutput
from .baselines import load_opencv
from .methods import Batch, check_outputs, method_names, method_title, picture_path, run_methods
from .networks import MetricNetworks
from .options import METRICS, PIXEL_METRICS, SET_METRICS, EvaluationOptions, bucket_name
from .records import Record
from .samples import Masks, evaluation_crop

# An exact fill has an infinite PSNR, and one of them would make the mean of a thousand images infinite.
PSNR_LIMIT = 100.0

# The pictures of which the rank correlation with the credibility map is taken.
CREDIBILITY_OF = ("coarse", "refined")

# What `--export` writes for another method to work on, and this model's answer.
EXPORTED = ("image", "mask", "damaged", "refined")

# A figure by its metric.
Figures = dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The figures, on composites rounded to 8 bits: means of per-image values, and distances of the whole sets."""

    options: EvaluationOptions
    number_of_images: int
    figures: dict[
        str, dict[str, dict[str, Figures]]
    ]  # by mask kind, method, and bucket such as "10-20" or "mean" over the buckets
    hole_shares: dict[str, dict[str, float]]  # mean share of missing pixels, by mask kind and bucket
    credibility: dict[
        str, dict[str, dict[str, float]]
    ]  # by mask kind, "coarse" or "refined", and bucket: the mean rank correlation of credibility and true error
    codebooks: dict[str, dict[str, float]]  # "global" and "local": usage and perplexity on the intact crops
    versions: dict[str, str]
    weights: dict[str, str]  # SHA-256 of the tensors of the model and of the feature networks
    left_out: dict[str, str] = field(default_factory=dict)  # metrics that could not be had, and why


def measure(
    output: torch.Tensor,
    target: torch.Tensor,
    missing: torch.Tensor,
    metrics: Sequence[str] = PIXEL_METRICS,
    networks: MetricNetworks | None = None,
) -> dict[str, list[float]]:
    """The metrics that have a value for each image.

    Args:
        output, target: (B, 3, H, W) in [0, 1], rounded to 8 bits.
        missing: (B, 1, H, W), 1 in the hole.
        metrics: of `IMAGE_METRICS`.
        networks: for LPIPS.

    Returns:
        B values for each of `metrics`.
    """
    functions = {
        "psnr": lambda: psnr(output, target).clamp(max=PSNR_LIMIT),
        "psnr_hole": lambda: psnr(output, target, missing).clamp(max=PSNR_LIMIT),
        "ssim": lambda: ssim(output, target),
        "l1": lambda: mean_l1(output, target),
        "l1_hole": lambda: mean_l1(output, target, missing),
        "lpips": lambda: networks.lpips(output, target),
    }
    return {name: functions[name]().tolist() for name in metrics}


def credibility_correlation(
    credibility: torch.Tensor, output: torch.Tensor, target: torch.Tensor, missing: torch.Tensor
) -> list[float]:
    """Spearman's rank correlation of credibility and true error over the cells of each image that touch the hole.

    Useful credibility is high where the error is low: the correlation is negative.

    Args:
        credibility: (B, 1, H/8, W/8) in [0, 1].
        output, target: (B, 3, H, W) in [0, 1].
        missing: (B, 1, H, W), 1 in the hole. The error of a cell is the mean absolute error of its missing pixels.

    Returns:
        B values in [-1, 1]; NaN where the credibility or the error is the same in all cells.
    """
    size = credibility.shape[-2:]
    share = F.adaptive_avg_pool2d(missing, size)
    error = F.adaptive_avg_pool2d((output - target).abs().mean(dim=1, keepdim=True) * missing, size)
    values = []
    for of_cell, errors, shares in zip(credibility.cpu(), error.cpu(), share.cpu(), strict=True):
        touched = shares > 0
        ranked, by = of_cell[touched].double(), (errors[touched] / shares[touched]).double()
        if len(ranked.unique()) < 2 or len(by.unique()) < 2:
            values.append(math.nan)
        else:
            values.append(float(spearman_corrcoef(ranked, by)))
    return values


def batches_of(number_of_images: int, options: EvaluationOptions) -> list[list[int]]:
    """The indices of the images that are measured, in batches."""
    chosen = spread(number_of_images, options.limit or number_of_images)
    return [chosen[start : start + options.batch_size] for start in range(0, len(chosen), options.batch_size)]


def evaluate(
    model: HVQInpainter,
    images: Sequence[Path],
    options: EvaluationOptions,
    networks: MetricNetworks | None = None,
) -> Evaluation:
    """Measure `model` on image files, with one mask for each image, mask kind and bucket.

    Args:
        model: runs on the device that it is on, in eval mode, and is left in the mode that it came in.
        images: image files, such as those of `data.list_images`, or `samples.DatasetFiles`; the order decides which
            mask meets which image.
        networks: for the metrics that need any.

    Raises:
        InvalidInputError: a file can't be read, or OpenCV or a network is asked for and not there.
    """
    records: dict[str, Record] = {}
    measure_records(model, images, options, records, networks)
    return summarise(model, records, len(images), options, networks)


@torch.inference_mode()
def measure_records(
    model: HVQInpainter,
    images: Sequence[Path],
    options: EvaluationOptions,
    records: MutableMapping[str, Record],
    networks: MetricNetworks | None = None,
    export: Path | None = None,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Fill `records` with those of this process's batches that are not there yet.

    Args:
        records: for each batch one of its intact images and one for each setting; shared by all processes.
        export: a folder for the pictures `EXPORTED`.
    """
    networks = networks or MetricNetworks()
    if options.opencv:
        load_opencv()
    batches = batches_of(len(images), options)
    if not batches:
        raise InvalidInputError("There is no image to evaluate on.")
    if set(options.metrics) & set(SET_METRICS) and sum(map(len, batches)) < 2:
        raise InvalidInputError("A Fréchet distance needs at least 2 images: leave fid and fd out of the metrics.")
    if surplus := set(options.metrics) - set(networks.metrics):
        raise InvalidInputError(f"There is no feature network for {', '.join(sorted(surplus))}.")
    method_names(model, options)
    check_outputs(batches, options)
    masks = Masks(options)
    mine = range(process, len(batches), processes)
    total = sum(len(batches[number]) for number in mine) * len(options.settings)
    with evaluating(model), tqdm(total=total, unit="fill", disable=True if process else None) as bar:
        for number in mine:
            if _images_name(number) in records:
                bar.update(len(batches[number]) * len(options.settings))
                continue
            indices = batches[number]
            pixels = [evaluation_crop(images[index], options.size) for index in indices]
            image = torch.cat([to_tensor(crop) for crop in pixels]).to(model.vqvae.global_quantizer.codebook.device)
            clean = model.vqvae(image)
            for setting, (kind, bucket) in enumerate(options.settings):
                holes = [masks.mask(kind, bucket, index) for index in indices]
                missing = torch.from_numpy(np.stack(holes))[:, None].float().to(image.device)
                batch = Batch(indices, pixels, holes, kind, bucket, image, missing)
                records[_setting_name(number, setting)] = _measure_batch(model, batch, clean, options, networks, export)
                bar.update(len(indices))
            # Last: where this one is, all of the batch are.
            records[_images_name(number)] = {
                "global_codes": clean.global_codes.flatten().to("cpu", torch.int32).numpy(),
                "local_codes": clean.local_codes.flatten().to("cpu", torch.int32).numpy(),
                **{
                    metric: networks.features_of(metric)(round_to_uint8(image)).cpu().numpy()
                    for metric in SET_METRICS
                    if metric in options.metrics
                },
            }


def _credibility_rows(methods: Iterable[str]) -> list[str]:
    return [method for method in methods if method in CREDIBILITY_OF]


def _images_name(batch: int) -> str:
    return f"{batch:06d}-images"


def _setting_name(batch: int, setting: int) -> str:
    return f"{batch:06d}-{setting:03d}"


def _measure_batch(
    model: HVQInpainter,
    batch: Batch,
    clean: VQVAEOutput,
    options: EvaluationOptions,
    networks: MetricNetworks,
    export: Path | None,
) -> Record:
    """All that is measured on some images under the masks of one setting, as arrays."""
    target, missing = round_to_uint8(batch.image), batch.missing
    outputs = run_methods(model, batch, clean, options)
    image_metrics = [metric for metric in options.metrics if metric not in SET_METRICS]
    record: Record = {"shares": missing.mean(dim=(1, 2, 3)).cpu().double().numpy()}
    composites = {}
    for method, output in outputs.composites.items():
        if not torch.isfinite(output).all():
            raise InvalidInputError(
                f"The {method_title(method)} result of one of the images {batch.indices} is not finite: "
                "the model's weights or their precision are broken."
            )
        composites[method] = round_to_uint8(output)
        for metric, values in measure(composites[method], target, missing, image_metrics, networks).items():
            record[f"{method}/{metric}"] = np.array(values, dtype=np.float64)
        for metric in set(SET_METRICS) & set(options.metrics):
            record[f"{method}/{metric}"] = networks.features_of(metric)(composites[method]).cpu().numpy()
    for method in _credibility_rows(outputs.composites):
        correlations = credibility_correlation(outputs.credibility, composites[method], target, missing)
        record[f"{method}/credibility"] = np.array(correlations, dtype=np.float64)
    if export is not None:
        _export(export, batch, composites)
    return record


def _export(folder: Path, batch: Batch, composites: dict[str, torch.Tensor]) -> None:
    """Write what another method needs to answer the same question, and this model's answer."""
    for position, index in enumerate(batch.indices):
        pictures = {
            "image": batch.pixels[position],
            "mask": batch.masks[position],
            **{method: to_pixels(composites[method][position]) for method in ("damaged", "refined")},
        }
        for name in EXPORTED:
            path = picture_path(folder / name, batch.kind, batch.bucket, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[name]).save(path)


def summarise(
    model: HVQInpainter,
    records: Mapping[str, Record],
    number_of_images: int,
    options: EvaluationOptions,
    networks: MetricNetworks | None = None,
) -> Evaluation:
    """The figures from the records of all batches."""
    batches = batches_of(number_of_images, options)
    names = method_names(model, options)
    networks = networks or MetricNetworks()
    metrics = [metric for metric in METRICS if metric in options.metrics]
    of_images = _joined([records[_images_name(number)] for number in range(len(batches))])
    distances = {metric: FrechetDistance(of_images[metric]) for metric in SET_METRICS if metric in metrics}
    figures: dict[str, dict[str, dict[str, Figures]]] = {
        kind: {method: {} for method in names} for kind in options.mask_kinds
    }
    credibility: dict[str, dict[str, dict[str, float]]] = {
        kind: {method: {} for method in _credibility_rows(names)} for kind in options.mask_kinds
    }
    shares: dict[str, dict[str, float]] = {kind: {} for kind in options.mask_kinds}
    for setting, (kind, bucket) in enumerate(tqdm(options.settings, desc="figures", unit="setting", disable=None)):
        values = _joined([records[_setting_name(number, setting)] for number in range(len(batches))])
        name = bucket_name(bucket)
        shares[kind][name] = _mean(values["shares"])
        for method in names:
            figures[kind][method][name] = {
                metric: distances[metric](values[f"{method}/{metric}"])
                if metric in SET_METRICS
                else _mean(values[f"{method}/{metric}"])
                for metric in metrics
            }
        for method in _credibility_rows(names):
            credibility[kind][method][name] = _mean_of_known(values[f"{method}/credibility"])
    for methods in figures.values():
        for by_bucket in methods.values():
            by_bucket["mean"] = {metric: _mean([figure[metric] for figure in by_bucket.values()]) for metric in metrics}
    for correlations in credibility.values():
        for by_name in correlations.values():
            by_name["mean"] = _mean_of_known(list(by_name.values()))
    usage = {
        level: codebook_usage(torch.from_numpy(of_images[f"{level}_codes"]), model.config.num_codes)
        for level in ("global", "local")
    }
    return Evaluation(
        options=options,
        number_of_images=sum(map(len, batches)),
        figures=figures,
        hole_shares=shares,
        credibility=credibility,
        codebooks={level: {"usage": share, "perplexity": perplexity} for level, (share, perplexity) in usage.items()},
        versions=versions(options),
        weights=digests(model, networks),
        left_out=dict(networks.left_out),
    )


def _joined(records: Sequence[Record]) -> Record:
    """The arrays of several records, one after the other."""
    return {name: np.concatenate([record[name] for record in records]) for name in records[0]}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _mean_of_known(values: Sequence[float]) -> float:
    """The mean of the correlations that there are: none where credibility does not vary within an image."""
    known = [value for value in values if not math.isnan(value)]
    return _mean(known) if known else math.nan


def settings_of(
    model: HVQInpainter,
    images: Sequence[Path],
    options: EvaluationOptions,
    networks: MetricNetworks,
    **others: str | None,
) -> dict[str, object]:
    """What decides the records, as plain values, so far as it can be known: a continued evaluation must have the same.

    What lies in the folders of masks and of other methods' pictures is taken on trust.

    Args:
        others: the dataset, its split, the device and so on, as the caller names them.
    """
    return {
        **json.loads(json.dumps(asdict(options))),
        **others,
        "config": json.loads(json.dumps(model.config.to_dict())),
        **digests(model, networks),
        "number of images": len(images),
        "versions": versions(options),
    }


def digests(model: HVQInpainter, networks: MetricNetworks) -> dict[str, str]:
    """The digest of all weights that figures depend on, by name."""
    modules = {"model": model, "lpips network": networks.lpips, "inception": networks.inception}
    return {name: digest(module) for name, module in modules.items() if module is not None}


def digest(module: nn.Module) -> str:
    """SHA-256 of all tensors of a module."""
    sums = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        sums.update(name.encode())
        sums.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sums.hexdigest()


def versions(options: EvaluationOptions) -> dict[str, str]:
    """The libraries that a figure may depend on."""
    found = {
        "hvq_inpaint": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchmetrics": torchmetrics.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }
    if options.opencv:
        found["opencv"] = load_opencv().__version__
    if {"lpips", "fd"} & set(options.metrics):
        found.update({name: metadata.version(name) for name in ("lpips", "torchvision")})
    if "fid" in options.metrics:
        found["torch-fidelity"] = metadata.version("torch-fidelity")
    return found

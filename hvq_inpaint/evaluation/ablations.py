"""Ablations: variants of a stage, trained alike from the same start and measured alike.

Everything that is not varied is the same: the VQ-VAE (and for the refiner EncoderB1) of a trained model, the weights
that a stage starts from, photographs, crops, masks, their order, steps and learning rates.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..blending import harmonic_extension
from ..data import InpaintingDataset, load_images
from ..errors import InvalidInputError
from ..inpainter import HVQInpainter
from ..losses import LOSS_PRESETS, composite
from ..masks import MASK_KINDS, RATIO_BUCKETS
from .evaluate import batches_of, digests, evaluate, versions
from .networks import load_networks
from .options import METRICS, PIXEL_METRICS, SET_METRICS, Bucket, EvaluationOptions
from .paper import QUOTED_TABLES
from .records import check_settings, write_settings
from .report import METRIC_FORMATS, METRIC_TITLES, markdown_table, network_notes, quoted_markdown, to_json
from .samples import DatasetFiles


class MeanColourInpainter(HVQInpainter):
    """Without a VQ stage: the refiner gets the mean colour of the known pixels in the hole.

    A saved one must be loaded by this class: its configuration does not say what the refiner gets.
    """

    def coarse_composite(self, coarse: torch.Tensor, damaged: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        total = (damaged * known).sum(dim=(2, 3), keepdim=True)
        number = known.sum(dim=(2, 3), keepdim=True).clamp_min(1)  # a crop of a large box may have no known pixel
        return composite((total / number).expand_as(damaged), damaged, known)


class HarmonicInpainter(HVQInpainter):
    """Without a VQ stage: the refiner gets the solution of Laplace's equation, which is Poisson blending of nothing.

    A saved one must be loaded by this class, likewise.
    """

    def coarse_composite(self, coarse: torch.Tensor, damaged: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return harmonic_extension(damaged, known).clamp(0, 1)


@dataclass(frozen=True)
class Variant:
    """One row: what differs from the trained model and from the common training options."""

    title: str
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    model: type[HVQInpainter] = HVQInpainter

    @property
    def definition(self) -> dict[str, Any]:
        """What it is, as plain values."""
        return {"config": self.config, "options": self.options, "model": self.model.__name__}


@dataclass(frozen=True)
class Ablation:
    """Variants of one stage, and the masks on which they differ."""

    question: str
    stage: str  # that is trained for each variant
    variants: dict[str, Variant]
    method: str  # the row of an evaluation that answers the question: coarse or refined
    mask_kinds: tuple[str, ...] = ("random_walk", "brush", "box")
    buckets: tuple[Bucket, ...] = RATIO_BUCKETS
    fine_tuned: bool = False  # the stage goes on from the trained model, and does not start anew
    quoted: str | None = None  # the number of the paper's table that has the same question


# What a refiner learns in minutes shows where it has all of the hole to fill: a blended VQ result it hardly changes.
_ALONE = "the refiner alone, from the mean colour"

ABLATIONS: dict[str, Ablation] = {
    "dilation": Ablation(
        question=f"Table 6: single dilation rates against {{1, 2, 4, 8}}, at the same width; {_ALONE}",
        stage="refiner",
        variants={
            **{
                f"rate-{rate}": Variant(f"{{{rate}}}", {"dilation_rates": (rate,)}, model=MeanColourInpainter)
                for rate in (8, 4, 2, 1)
            },
            "all": Variant("{1, 2, 4, 8}", {"dilation_rates": (1, 2, 4, 8)}, model=MeanColourInpainter),
        },
        method="refined",
        mask_kinds=("random_walk",),
        buckets=((0.3, 0.4),),
        quoted="Table 6",
    ),
    "input": Ablation(
        question="What the VQ stage earns: what the refiner gets in the hole",
        stage="refiner",
        variants={
            "mean": Variant("mean colour, no VQ stage", model=MeanColourInpainter),
            "harmonic": Variant("Laplace's equation, no VQ stage", model=HarmonicInpainter),
            "pasted": Variant("VQ result, pasted (the paper's)", {"poisson_composite": False}),
            "blended": Variant("VQ result, Poisson-blended", {"poisson_composite": True}),
        },
        method="refined",
    ),
    "skips": Ablation(
        question=f"Skip connections; {_ALONE}",
        stage="refiner",
        variants={
            "none": Variant("none (the paper's)", {"refiner_skips": False}, model=MeanColourInpainter),
            "skips": Variant("skip connections", {"refiner_skips": True}, model=MeanColourInpainter),
        },
        method="refined",
        mask_kinds=("random_walk", "brush"),
    ),
    "residual": Ablation(
        question="What the refiner makes: the picture, or what is added to its input",
        stage="refiner",
        variants={
            "picture": Variant("the picture (the paper's)", {"refiner_residual": False}),
            "residual": Variant("what is added to its input", {"refiner_residual": True}),
        },
        method="refined",
    ),
    "loss": Ablation(
        question="Weights of Eq. (17)",
        stage="refiner",
        variants={name: Variant(name, options={"loss": name}) for name in LOSS_PRESETS},
        method="refined",
        fine_tuned=True,  # features are no guide for a refiner that fills with noise
    ),
    "credibility": Ablation(
        question="Eq. (8) to (10): weight of vectors of low credibility, and the quantile that is MaxDist",
        stage="encoder",
        variants={
            "off": Variant("weight 0", options={"low_credibility_weight": 0.0}),
            "maximum": Variant("weight 8, quantile 1.0 (the paper's)", options={"credibility_quantile": 1.0}),
            "0.99": Variant("weight 8, quantile 0.99", options={"credibility_quantile": 0.99}),
            "0.9": Variant("weight 8, quantile 0.9", options={"credibility_quantile": 0.9}),
        },
        method="coarse",
    ),
    "hole": Ablation(
        question="What EncoderB1 sees in the hole",
        stage="encoder",
        variants={
            "zeros": Variant("zeros (the paper's)", {"harmonic_input": False}),
            "harmonic": Variant("the solution of Laplace's equation", {"harmonic_input": True}),
        },
        method="coarse",
    ),
    "masks": Ablation(
        question="Masks to train EncoderB1 on",
        stage="encoder",
        variants={
            "random-walk": Variant("random walks (the paper's)", options={"mask_kinds": ("random_walk",)}),
            "mixture": Variant("random walks, strokes and boxes", options={"mask_kinds": MASK_KINDS}),
        },
        method="coarse",
    ),
    "codebook": Ablation(
        question="Codes in each codebook",
        stage="autoencoder",
        variants={str(number): Variant(str(number), {"num_codes": number}) for number in (128, 512, 2048)},
        method="oracle",
        mask_kinds=("brush",),
    ),
    "warmup": Ablation(
        question="Steps without codes at the start of stage 1",
        stage="autoencoder",
        variants={
            "none": Variant("none (the paper's)", options={"quantization_warmup": 0}),
            "fifth": Variant("a fifth of the steps, at most 500"),
        },
        method="oracle",
        mask_kinds=("brush",),
    ),
    "crop": Ablation(
        question="Size of the crops to train EncoderB1 on, with as many pixels in each step",
        stage="encoder",
        variants={
            "128": Variant("8 crops of 128 pixels", options={"crop_size": 128, "batch_size": 8}),
            "256": Variant("2 crops of 256 pixels", options={"crop_size": 256, "batch_size": 2}),
        },
        method="coarse",
    ),
    "rate": Ablation(
        question=f"Learning rate; {_ALONE}",
        stage="refiner",
        variants={
            rate: Variant(rate, options={"learning_rate": float(rate)}, model=MeanColourInpainter)
            for rate in ("1e-4", "4e-4", "1.6e-3")
        },
        method="refined",
        mask_kinds=("random_walk", "brush"),
    ),
    "average": Ablation(
        question=f"Moving average of the weights; {_ALONE}",
        stage="refiner",
        variants={
            decay: Variant(decay, options={"ema_decay": float(decay)}, model=MeanColourInpainter)
            for decay in ("0", "0.99", "0.998")
        },
        method="refined",
        mask_kinds=("random_walk", "brush"),
    ),
    "coarse": Ablation(
        question="Stage 2 with a loss of the VQ stage's picture, or of its codes, beside those of the latents",
        stage="encoder",
        variants={
            "off": Variant("latents only, Eq. (6) and (10) (the paper's)", options={"coarse_weight": 0.0}),
            "on": Variant("and the coarse picture, weight 4", options={"coarse_weight": 4.0}),
            "codes": Variant("and the local codes' cross-entropy, weight 0.1", options={"code_weight": 0.1}),
        },
        method="coarse",
    ),
    "feedback": Ablation(
        question="The transformer's output fed back into F_mid2",
        stage="encoder",
        variants={
            "off": Variant("off (the paper's)", {"transformer_feedback": False}),
            "on": Variant("on", {"transformer_feedback": True}),
        },
        method="coarse",
        mask_kinds=("brush", "box"),
    ),
}


# What each stage trains.
_TRAINED_PARTS = {"autoencoder": "vqvae", "encoder": "encoder_b1", "refiner": "refiner"}


def variant_model(
    base: HVQInpainter, ablation: Ablation, variant: Variant, refiner_config: dict[str, Any], seed: int
) -> HVQInpainter:
    """The model that a variant starts from: `base`, with the stage's part drawn anew unless that is fine-tuned.

    Args:
        refiner_config: fields of the configuration for a refiner that is drawn anew.
        seed: of the weights drawn anew.
    """
    anew = None if ablation.fine_tuned else _TRAINED_PARTS[ablation.stage]
    changes = refiner_config if anew == "refiner" else {}
    config = dataclasses.replace(base.config, **{**changes, **variant.config})
    torch.manual_seed(seed)
    model = variant.model(config)
    for name in ("vqvae", "encoder_b1", "credibility_map", "refiner"):
        if name != anew:
            getattr(model, name).load_state_dict(getattr(base, name).state_dict())
    return model


BUDGET_FILE = "budget.json"

# Of a budget, those that training takes as they are.
_TRAINING_FIELDS = (
    "steps",
    "batch_size",
    "crop_size",
    "mask_size",
    "learning_rate",
    "adam_betas",
    "mixed_precision",
    "seed",
    "workers",
)


@dataclass(frozen=True)
class Budget:
    """What every variant gets alike. Sizes and rates as in `training.options.TrainingOptions`."""

    dataset: str
    validation: str
    steps: int = 2000
    batch_size: int = 8
    crop_size: int = 128
    mask_size: int = 256
    learning_rate: float = 4e-4
    adam_betas: tuple[float, float] = (0.9, 0.99)
    mixed_precision: str | None = None
    refiner_channels: tuple[int, int, int] = (16, 32, 64)
    refiner_residual: bool = True  # else a small budget goes into learning to give back the input
    seed: int = 0
    workers: int = 1
    limit: int | None = 60  # photographs to measure on, spread evenly
    evaluation_size: int = 256
    evaluation_batch_size: int = 8

    @property
    def refiner_config(self) -> dict[str, Any]:
        """Of a refiner that is drawn anew, where the variant does not say otherwise."""
        return {"refiner_channels": self.refiner_channels, "refiner_residual": self.refiner_residual}


def run_ablation(
    name: str,
    base: HVQInpainter,
    base_name: str,
    budget: Budget,
    folder: Path,
    metrics: Sequence[str] | None = None,
    vgg_weights: str | None = None,
    lpips_weights: str | None = None,
) -> Path:
    """Train and measure every variant of `ABLATIONS[name]`; those that are done already are not done again.

    Args:
        base: a trained model, whose earlier stages all variants share.
        base_name: what the report calls it.
        folder: for `VARIANT/STAGE/model`, `VARIANT/evaluation.json` and `ablation.md`; the inputs that all refiners
            share lie beside it.
        metrics, lpips_weights: as for `networks.load_networks`.

    Returns:
        The path of `ablation.md`.

    Raises:
        InvalidInputError: there is no such ablation, the folder holds one of another budget, or what is needed can't be
            had.
    """
    from ..training.cache import cache_inputs
    from ..training.options import TrainingOptions
    from ..training.trainer import load_loss_networks, make_accelerator, sample_options, train_stage

    if name not in ABLATIONS:
        raise InvalidInputError(f"There is no ablation {name!r}; choose one of {', '.join(ABLATIONS)}.")
    ablation = ABLATIONS[name]
    # All that can be refused is refused before hours of training.
    networks = load_networks(metrics, lpips_weights)
    evaluation_options = EvaluationOptions(
        mask_kinds=ablation.mask_kinds,
        buckets=ablation.buckets,
        size=budget.evaluation_size,
        seed=budget.seed,
        limit=budget.limit,
        batch_size=budget.evaluation_batch_size,
        opencv=False,
        methods=(ablation.method,),
        metrics=tuple(metrics or PIXEL_METRICS),
    )
    images = DatasetFiles(budget.validation, "validation")
    measured = sum(map(len, batches_of(len(images), evaluation_options)))
    if metrics is None:
        evaluation_options = dataclasses.replace(evaluation_options, metrics=networks.metrics_on(measured))
    elif measured < 2 and set(metrics) & set(SET_METRICS):
        raise InvalidInputError("A Fréchet distance needs at least 2 images: leave fid and fd out, or raise --limit.")
    common = {field: getattr(budget, field) for field in _TRAINING_FIELDS}
    training = {
        key: TrainingOptions(
            stage=ablation.stage,
            preset=f"variant {key} of the ablation {name}",
            dataset=budget.dataset,
            output=str(folder / key),
            resume="auto",
            vgg_weights=vgg_weights,
            lpips_weights=lpips_weights,
            learning_rate_warmup=min(200, budget.steps // 10),
            **{"quantization_warmup": min(500, budget.steps // 5), **common, **variant.options},
        )
        for key, variant in ablation.variants.items()
    }
    loss_networks = {key: load_loss_networks(options) for key, options in training.items()}
    samples = InpaintingDataset(load_images(budget.dataset), sample_options(next(iter(training.values()))))
    settings = {
        "ablation": name,
        "variants": {key: variant.definition for key, variant in ablation.variants.items()},
        "config": base.config.to_dict(),
        "metrics": evaluation_options.metrics,
        **digests(base, networks),
        "versions": versions(evaluation_options),
        **dataclasses.asdict(budget),
    }
    try:
        check_settings(folder / BUDGET_FILE, settings, "an ablation")
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}: choose another --out.") from None
    write_settings(folder / BUDGET_FILE, settings)

    documents = {}
    for key, variant in ablation.variants.items():
        result = folder / key / "evaluation.json"
        if not result.is_file():
            accelerator = make_accelerator(training[key])
            if accelerator.num_processes > 1:
                raise InvalidInputError("Ablations run in one process: start them with plain python.")
            start = variant_model(base, ablation, variant, budget.refiner_config, budget.seed)
            cache = None
            if ablation.stage == "refiner" and sample_options(training[key]) == samples.options:
                cache = cache_inputs(
                    base, samples, budget.steps * budget.batch_size, _cache_folder(folder, settings), accelerator.device
                )
            trained = train_stage(accelerator, training[key], loss_networks[key], start, cache).to(accelerator.device)
            networks.to(accelerator.device)
            evaluation = evaluate(trained, images, evaluation_options, networks)
            text = to_json(evaluation, str(folder / key), budget.validation, accelerator.device.type)
            partial = result.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(result)
        documents[key] = json.loads(result.read_text(encoding="utf-8"))
    report = folder / "ablation.md"
    report.write_text(ablation_report(name, base_name, budget, documents), encoding="utf-8")
    return report


def _cache_folder(folder: Path, settings: dict[str, Any]) -> Path:
    """Beside the ablations, shared by those whose inputs are the same."""
    deciding = ("model", "dataset", "steps", "batch_size", "crop_size", "mask_size", "seed")
    named = json.dumps({name: settings[name] for name in deciding}, sort_keys=True)
    return folder.parent / f"inputs-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def ablation_report(name: str, base_name: str, budget: Budget, documents: dict[str, dict[str, Any]]) -> str:
    """The budget in words and the figures of every variant, as Markdown.

    Args:
        documents: by variant, what `report.to_json` wrote.
    """
    ablation = ABLATIONS[name]
    first = next(iter(documents.values()))
    metrics = [metric for metric in METRICS if metric in first["settings"]["metrics"]]
    buckets = first["settings"]["buckets_percent"]
    how = "trained on" if ablation.fine_tuned else "trained anew"
    if ablation.stage == "refiner" and not ablation.fine_tuned:
        how += f" with channels {', '.join(map(str, budget.refiner_channels))}"
        if "refiner_residual" not in next(iter(ablation.variants.values())).config:
            how += ", for what is added to its input" if budget.refiner_residual else ", for the picture"
    varied = {name for variant in ablation.variants.values() for name in variant.options}
    rate = "" if "learning_rate" in varied else f"learning rate {budget.learning_rate:g}, "
    batch = "" if "crop_size" in varied else f" of {budget.batch_size} crops of {budget.crop_size} pixels"
    shared = "photographs, crops and masks"
    if varied & {"crop_size", "mask_kinds"}:
        shared = "photographs" if "crop_size" in varied else "photographs and crops"
    of_buckets = "means over the buckets" if len(buckets) > 1 else "bucket"
    by_metric, by_bucket, by_rank = [], [], []
    for kind in ablation.mask_kinds:
        for key, document in documents.items():
            figures = document["figures"][kind][ablation.method]
            labels = [ablation.variants[key].title, kind.replace("_", " ")]
            by_metric.append(
                [*labels, *(format(figures["mean"][metric], METRIC_FORMATS[metric]) for metric in metrics)]
            )
            if ablation.stage == "encoder":
                correlation = document["credibility"][kind][ablation.method]["mean"]
                by_rank.append([*labels, "none" if correlation is None else format(correlation, ".2f")])
            by_bucket.append([*labels, *(format(figures[bucket].get("psnr_hole", 0), ".2f") for bucket in buckets)])
    parts = [
        f"# {ablation.question}",
        f"For each variant the stage {ablation.stage} was {how}: {budget.steps} steps{batch}, {rate}seed "
        f"{budget.seed}, the same {shared}; all else is that of {base_name}. Figures of the {ablation.method} result "
        f"on {first['number_of_images']} photographs at {budget.evaluation_size} pixels, {of_buckets} "
        f"{', '.join(buckets)} %.",
        *network_notes(metrics, first["number_of_images"], first["left_out"]),
        markdown_table(["variant", "masks", *(METRIC_TITLES[metric] for metric in metrics)], by_metric),
    ]
    if by_rank:
        parts += [
            "Rank correlation of credibility and true error (see `evaluate`):",
            markdown_table(["variant", "masks", "correlation"], by_rank),
        ]
    if len(buckets) > 1 and "psnr_hole" in metrics:
        parts += [
            "PSNR in the hole (dB) by bucket:",
            markdown_table(["variant", "masks", *(f"{bucket} %" for bucket in buckets)], by_bucket),
        ]
    parts += [f"Quoted. {quoted_markdown(table)}" for table in QUOTED_TABLES if table.number == ablation.quoted]
    return "\n\n".join(parts) + "\n"

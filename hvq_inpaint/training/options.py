"""What a training run can be told, from the command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ..config import PRESETS, SIZE_MULTIPLE
from ..errors import InvalidInputError
from ..inpainter import TRAINING_STAGES
from ..losses import LOSS_PRESETS
from ..masks import MASK_KINDS

_MIN_LPIPS_CROP = 40  # pixels: AlexNet's, and the shift by up to 3
_MIN_FEATURE_WINDOW = 16  # pixels: VGG-19 halves them four times


@dataclass(frozen=True)
class TrainingOptions:
    """One stage of a training run. Lists on the command line (one value a stage) are resolved here."""

    stage: str
    dataset: str
    output: str
    preset: str = "paper"
    init: str | None = None
    fine_tune: bool = False
    split: str = "train"
    streaming: bool = False
    validation: str | None = None
    validation_split: str = "validation"
    validation_images: int = 48
    validation_size: int = 256
    validation_every: int = 1000

    steps: int = 100_000
    batch_size: int = 6
    micro_batch_size: int = 0
    crop_size: int = 256
    mask_size: int = 256
    mask_kinds: tuple[str, ...] = MASK_KINDS
    learning_rate: float = 4e-4
    final_learning_rate: float = 0.05
    learning_rate_warmup: int = 500
    adam_betas: tuple[float, float] = (0.0, 0.9)
    max_gradient_norm: float = 1.0
    divergence_factor: float = 20.0
    ema_decay: float = 0.0
    seed: int = 0

    quantization_warmup: int = 500
    restart_every: int = 100
    credibility_quantile: float = 1.0
    low_credibility_weight: float = 8.0
    coarse_weight: float = 0.0
    code_weight: float = 0.0
    loss: str = "l1"
    feature_window: int = 0
    vgg_weights: str | None = None
    lpips_weights: str | None = None

    mixed_precision: str | None = None
    tf32: bool = True
    compile: bool = False
    gradient_checkpointing: bool = False
    workers: int = 1
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    resume: str | None = None
    log_every: int = 20

    def __post_init__(self) -> None:
        positive = "steps batch_size validation_images validation_every checkpoint_every keep_checkpoints log_every"
        for name in positive.split():
            if getattr(self, name) < 1:
                raise InvalidInputError(f"--{flag(name)} must be at least 1, not {getattr(self, name)}.")
        for name in ("quantization_warmup", "restart_every", "learning_rate_warmup", "workers", "max_gradient_norm"):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"--{flag(name)} must not be negative, not {getattr(self, name)}.")
        for name in ("crop_size", "validation_size"):
            if getattr(self, name) < SIZE_MULTIPLE or getattr(self, name) % SIZE_MULTIPLE:
                raise InvalidInputError(
                    f"--{flag(name)} must be a multiple of {SIZE_MULTIPLE}, not {getattr(self, name)}."
                )
        if self.stage == "autoencoder" and self.steps <= self.quantization_warmup:
            raise InvalidInputError(
                f"--quantization-warmup {self.quantization_warmup} leaves none of the {self.steps} steps "
                "to the codebooks."
            )
        if self.stage == "refiner" and LOSS_PRESETS[self.loss].lpips > 0 and self.crop_size < _MIN_LPIPS_CROP:
            raise InvalidInputError(
                f"--crop-size must be at least {_MIN_LPIPS_CROP} for --loss {self.loss}, not {self.crop_size}."
            )
        if self.feature_window and not _MIN_FEATURE_WINDOW <= self.feature_window <= self.crop_size:
            raise InvalidInputError(
                f"--feature-window must be 0 or lie between {_MIN_FEATURE_WINDOW} and the crop size {self.crop_size}, "
                f"not {self.feature_window}."
            )
        if self.fine_tune and not (self.stage == "encoder" and self.init):
            raise InvalidInputError("--fine-tune is for --stage encoder, and needs the model to go on with in --init.")
        if not 0 < self.credibility_quantile <= 1:
            raise InvalidInputError(f"--credibility-quantile must lie in (0, 1], not {self.credibility_quantile}.")
        for name in ("coarse_weight", "code_weight", "low_credibility_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidInputError(f"--{flag(name)} must be at least 0, not {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise InvalidInputError(f"--ema-decay must lie in [0, 1), not {self.ema_decay}.")
        if not self.learning_rate > 0:
            raise InvalidInputError(f"--learning-rate must be positive, not {self.learning_rate}.")
        if self.micro_batch_size < 0:
            raise InvalidInputError(f"--micro-batch-size must not be negative, not {self.micro_batch_size}.")
        if self.divergence_factor and not self.divergence_factor > 1:
            raise InvalidInputError(f"--divergence-factor must be 0 or above 1, not {self.divergence_factor}.")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise InvalidInputError(f"--adam-betas must lie in [0, 1), not {self.adam_betas}.")


def flag(name: str) -> str:
    """An option's name as it is written on the command line, without the dashes in front."""
    return name.replace("_", "-")


# Flags that take one value for all stages, or one for each of the stages that are run.
_PER_STAGE = (
    "steps",
    "batch_size",
    "crop_size",
    "learning_rate",
    "learning_rate_warmup",
    "validation_every",
    "checkpoint_every",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `train_accelerate.py`."""
    parser = argparse.ArgumentParser(
        prog="train_accelerate.py",
        description="Train an HVQInpainter in three stages, each from the model that the last one saved. "
        "Start with 'accelerate launch train_accelerate.py ...', or with plain python on one device.",
        epilog="Flags marked * take one value for all stages, or with --stage all three values: "
        "autoencoder, encoder, refiner.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingOptions)}

    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--stage",
        choices=(*TRAINING_STAGES, "all"),
        required=True,
        help="autoencoder: VQ-VAE and codebooks; encoder: EncoderB1; refiner; all: one after the other",
    )
    what.add_argument("--dataset", required=True, help="a folder of images, Parquet, or a dataset id on the Hub")
    what.add_argument(
        "--output",
        required=True,
        help="folder for checkpoints, logs and models; the trained model is OUTPUT/STAGE/model",
    )
    what.add_argument("--preset", choices=tuple(PRESETS), default=defaults["preset"], help="sizes of the networks")
    what.add_argument("--init", metavar="MODEL", help="let the (first) stage start from this saved model or Hub id")
    what.add_argument(
        "--fine-tune",
        action="store_true",
        help="encoder: go on with the EncoderB1 of --init, which otherwise starts anew from EncoderA1",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--split", default=defaults["split"], help="split of a dataset on the Hub")
    data.add_argument("--streaming", action="store_true", help="read the dataset while training")
    data.add_argument(
        "--crop-size",
        type=int,
        nargs="+",
        default=[defaults["crop_size"]],
        help="* side of the training crops in pixels, a multiple of 8",
    )
    data.add_argument(
        "--mask-size", type=int, default=defaults["mask_size"], help="masks are made at this size and cropped"
    )
    data.add_argument(
        "--mask-kinds",
        nargs="+",
        choices=MASK_KINDS,
        default=list(MASK_KINDS),
        help="kinds of masks, drawn in equal shares",
    )
    data.add_argument(
        "--workers", type=int, default=defaults["workers"], help="processes that load data, for each training process"
    )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--steps", type=int, nargs="+", default=[defaults["steps"]], help="* optimiser steps")
    optimisation.add_argument(
        "--batch-size", type=int, nargs="+", default=[defaults["batch_size"]], help="* images a step, for each process"
    )
    optimisation.add_argument(
        "--micro-batch-size",
        type=int,
        default=defaults["micro_batch_size"],
        help="images of a step that go through the networks at once, for each process; 0: all, or as many as the "
        "memory holds",
    )
    optimisation.add_argument(
        "--learning-rate",
        type=float,
        nargs="+",
        default=[defaults["learning_rate"]],
        help="* at the peak, after a linear warm-up",
    )
    optimisation.add_argument(
        "--final-learning-rate",
        type=float,
        default=defaults["final_learning_rate"],
        help="share of the peak at which the cosine ends",
    )
    optimisation.add_argument(
        "--learning-rate-warmup", type=int, nargs="+", default=[defaults["learning_rate_warmup"]], help="* steps"
    )
    optimisation.add_argument(
        "--adam-betas", type=float, nargs=2, default=list(defaults["adam_betas"]), help="Adam's two decay rates"
    )
    optimisation.add_argument(
        "--max-gradient-norm",
        type=float,
        default=defaults["max_gradient_norm"],
        help="gradients are scaled down to this norm; 0: never",
    )
    optimisation.add_argument(
        "--divergence-factor",
        type=float,
        default=defaults["divergence_factor"],
        help="stop when the mean loss of 50 steps exceeds so many times the lowest that it was; 0: only when it is not "
        "finite",
    )
    optimisation.add_argument(
        "--ema-decay",
        type=float,
        default=defaults["ema_decay"],
        help="save and validate an exponential moving average of the weights (codebooks are copied); 0: the weights "
        "themselves",
    )
    optimisation.add_argument(
        "--mixed-precision", choices=("no", "bf16", "fp16"), help="overrides what accelerate was configured with"
    )
    optimisation.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=defaults["tf32"],
        help="let convolutions in float32 use the TensorFloat32 of NVIDIA's GPUs; codebooks never do",
    )
    optimisation.add_argument("--compile", action="store_true", help="compile the networks (torch.compile)")
    optimisation.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="refiner: compute the blocks' activations again for the gradient instead of keeping them: less memory, "
        "more time",
    )
    optimisation.add_argument("--seed", type=int, default=defaults["seed"], help="of weights, order, crops and masks")

    stages = parser.add_argument_group("single stages")
    stages.add_argument(
        "--quantization-warmup",
        type=int,
        default=defaults["quantization_warmup"],
        help="autoencoder: steps without quantisation, before the codebooks start from data",
    )
    stages.add_argument(
        "--restart-every",
        type=int,
        default=defaults["restart_every"],
        help="autoencoder: steps between restarts of dead codes; 0: never",
    )
    stages.add_argument(
        "--credibility-quantile",
        type=float,
        default=defaults["credibility_quantile"],
        help="encoder: quantile of the clean distances that is MaxDist, Eq. (8); 1 is the paper's",
    )
    stages.add_argument(
        "--low-credibility-weight",
        type=float,
        default=defaults["low_credibility_weight"],
        help="encoder: weight of vectors of low credibility, Eq. (10)",
    )
    stages.add_argument(
        "--coarse-weight",
        type=float,
        default=defaults["coarse_weight"],
        help="encoder: weight of the l1 loss of the VQ stage's result, an addition to the paper",
    )
    stages.add_argument(
        "--code-weight",
        type=float,
        default=defaults["code_weight"],
        help="encoder: weight of the cross-entropy of the local codes, an addition to the paper",
    )
    stages.add_argument(
        "--loss",
        choices=tuple(LOSS_PRESETS),
        default=defaults["loss"],
        help="refiner: weights of Eq. (17); those with lpips or unit_features are additions to the paper",
    )
    stages.add_argument(
        "--feature-window",
        type=int,
        default=defaults["feature_window"],
        help="refiner: side in pixels of the window of each crop that VGG-19 looks at, another in each step, to save "
        "time; 0: the whole crop",
    )
    stages.add_argument(
        "--vgg-weights",
        metavar="FILE",
        help="refiner: safetensors with the Oxford VGG-19 for Eq. (13), (15), instead of torchvision's download",
    )

    stages.add_argument(
        "--lpips-weights",
        metavar="FILE",
        help="refiner: safetensors with AlexNet's convolutions for LPIPS, instead of torchvision's download",
    )

    following = parser.add_argument_group("following a run")
    following.add_argument("--validation", metavar="DATASET", help="images to validate on: folder, Parquet or Hub id")
    following.add_argument(
        "--validation-split", default=defaults["validation_split"], help="split of a validation dataset on the Hub"
    )
    following.add_argument(
        "--validation-images", type=int, default=defaults["validation_images"], help="how many of them"
    )
    following.add_argument(
        "--validation-size", type=int, default=defaults["validation_size"], help="side of their centre crops in pixels"
    )
    following.add_argument(
        "--validation-every",
        type=int,
        nargs="+",
        default=[defaults["validation_every"]],
        help="* steps between validations",
    )
    following.add_argument("--log-every", type=int, default=defaults["log_every"], help="steps between logged values")
    following.add_argument(
        "--checkpoint-every",
        type=int,
        nargs="+",
        default=[defaults["checkpoint_every"]],
        help="* steps between checkpoints",
    )
    following.add_argument(
        "--keep-checkpoints",
        type=int,
        default=defaults["keep_checkpoints"],
        help="older ones are deleted, but for the one with the best validation",
    )
    following.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="continue from the newest intact checkpoint in OUTPUT ('auto', the same as no value) if there is one, and "
        "skip stages that are done; or from this checkpoint, such as step-00001000",
    )
    return parser


def parse_options(arguments: Sequence[str] | None = None) -> list[TrainingOptions]:
    """The options of each stage to run, in order."""
    values = vars(build_parser().parse_args(arguments))
    stages = TRAINING_STAGES if values["stage"] == "all" else (values["stage"],)
    values["mask_kinds"], values["adam_betas"] = tuple(values["mask_kinds"]), tuple(values["adam_betas"])
    if values["fine_tune"] and values["stage"] != "encoder":
        raise InvalidInputError("--fine-tune is for --stage encoder.")
    for name in _PER_STAGE:
        if len(values[name]) not in (1, len(stages)):
            raise InvalidInputError(
                f"--{flag(name)} takes one value, or one for each of the {len(stages)} stages, not {len(values[name])}."
            )
    return [
        TrainingOptions(
            **{
                **values,
                "stage": stage,
                "init": values["init"] if position == 0 else None,  # later stages start from the one before them
                **{name: values[name][position if len(values[name]) > 1 else 0] for name in _PER_STAGE},
            }
        )
        for position, stage in enumerate(stages)
    ]

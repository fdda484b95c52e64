"""What a training run can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import SIZE_MULTIPLE
from ..errors import InvalidInputError
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
    preset: str | None = None  # that of the model it starts from, or paper
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
    unreadable_limit: int = 100
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    resume: str | None = None
    log_every: int = 20
    log_with: tuple[str, ...] = ("tensorboard",)
    push_to_hub: str | None = None
    push_best: str | None = None
    hub_private: bool = False

    def __post_init__(self) -> None:
        positive = "steps batch_size validation_images validation_every checkpoint_every keep_checkpoints log_every"
        for name in positive.split():
            if getattr(self, name) < 1:
                raise InvalidInputError(f"--{flag(name)} must be at least 1, not {getattr(self, name)}.")
        for name in (
            "quantization_warmup",
            "restart_every",
            "learning_rate_warmup",
            "workers",
            "unreadable_limit",
            "max_gradient_norm",
        ):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"--{flag(name)} must not be negative, not {getattr(self, name)}.")
        for name in ("crop_size", "validation_size"):
            if getattr(self, name) < SIZE_MULTIPLE or getattr(self, name) % SIZE_MULTIPLE:
                raise InvalidInputError(
                    f"--{flag(name)} must be a multiple of {SIZE_MULTIPLE}, not {getattr(self, name)}."
                )
        if self.stage == "autoencoder" and not self.fine_tune and self.steps <= self.quantization_warmup:
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
        if not 0 < self.credibility_quantile <= 1:
            raise InvalidInputError(f"--credibility-quantile must lie in (0, 1], not {self.credibility_quantile}.")
        for name in ("coarse_weight", "code_weight", "low_credibility_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidInputError(f"--{flag(name)} must be at least 0, not {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise InvalidInputError(f"--ema-decay must lie in [0, 1), not {self.ema_decay}.")
        if not self.learning_rate > 0:
            raise InvalidInputError(f"--learning-rate must be positive, not {self.learning_rate}.")
        for name in ("learning_rate", "final_learning_rate", "max_gradient_norm", "divergence_factor"):
            if not math.isfinite(getattr(self, name)):
                raise InvalidInputError(f"--{flag(name)} must be finite, not {getattr(self, name)}.")
        if not 0 <= self.final_learning_rate <= 1:
            raise InvalidInputError(f"--final-learning-rate must lie in [0, 1], not {self.final_learning_rate}.")
        if self.mask_size < SIZE_MULTIPLE:
            raise InvalidInputError(f"--mask-size must be at least {SIZE_MULTIPLE}, not {self.mask_size}.")
        if not 0 <= self.seed < 2**32:
            raise InvalidInputError(f"--seed must lie between 0 and {2**32 - 1}, not {self.seed}.")
        if self.push_best and not self.push_to_hub:
            raise InvalidInputError("--push-best needs the repository: give it with --push-to-hub.")
        if self.push_best and not self.validation:
            raise InvalidInputError("--push-best needs images to tell which model is best: give --validation.")
        if self.micro_batch_size < 0:
            raise InvalidInputError(f"--micro-batch-size must not be negative, not {self.micro_batch_size}.")
        if self.divergence_factor and not self.divergence_factor > 1:
            raise InvalidInputError(f"--divergence-factor must be 0 or above 1, not {self.divergence_factor}.")
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise InvalidInputError(f"--adam-betas must lie in [0, 1), not {self.adam_betas}.")


def flag(name: str) -> str:
    """An option's name as it is written on the command line, without the dashes in front."""
    return name.replace("_", "-")


# The command's defaults for a preset, in place of those above, which are the paper's.
PRESET_DEFAULTS: dict[str, dict[str, int]] = {
    "small": {"crop_size": 128, "batch_size": 16, "steps": 20_000},
    "tiny": {
        "crop_size": 32,
        "mask_size": 32,
        "batch_size": 4,
        "steps": 100,
        "quantization_warmup": 20,
        "learning_rate_warmup": 10,
        "validation_size": 32,
    },
}

"""The options of a run from the command line and from a file.

In this order, the later before the earlier: the defaults, those of the preset, the file's, the command line's.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from accelerate.utils import LoggerType

from ..config import PRESETS
from ..errors import InvalidInputError
from ..inpainter import TRAINING_STAGES
from ..losses import LOSS_PRESETS
from ..masks import MASK_KINDS
from ..tokens import refuse_tokens
from .options import PRESET_DEFAULTS, TrainingOptions, flag

TRACKERS = tuple(kind.value for kind in LoggerType if kind != LoggerType.ALL)


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one sentence, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        stop = "" if message[-1] in ".?" else "."
        raise InvalidInputError(f"{message[0].upper()}{message[1:]}{stop}")

    def parse_args(self, arguments: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        values, surplus = self.parse_known_args(arguments, namespace)
        if surplus:
            names = [name for action in self._actions for name in action.option_strings]
            self.error(f"there is no option {surplus[0]}{_suggestion(surplus[0].partition('=')[0], names)}")
        return values


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows no default where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _suggestion(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else "."


def _one_of(*choices: str) -> Callable[[str], str]:
    """A type for argparse: one of `choices`."""

    def choose(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}{_suggestion(text, choices)}")
        return text

    return choose


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


def build_parser() -> _Parser:
    """The parser of `train_accelerate.py`."""
    parser = _Parser(
        prog="train_accelerate.py",
        description="Train an HVQInpainter in three stages, each from the model that the last one saved. "
        "Start with 'accelerate launch train_accelerate.py ...', or with plain python on one device.",
        epilog="Flags marked * take one value for all stages, or one for each of them: with --stage all three, "
        "autoencoder, encoder, refiner.",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingOptions)}

    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--stage",
        nargs="+",
        type=_one_of(*TRAINING_STAGES, "all"),
        metavar="STAGE",
        required=True,
        help="autoencoder: VQ-VAE and codebooks; encoder: EncoderB1; refiner; several, or all: one after the other",
    )
    what.add_argument("--dataset", required=True, help="a folder of images, Parquet, or a dataset id on the Hub")
    what.add_argument(
        "--output",
        required=True,
        help="folder for checkpoints, logs and models; the trained model is OUTPUT/STAGE/model",
    )
    what.add_argument(
        "--preset",
        type=_one_of(*PRESETS),
        metavar="PRESET",
        help=f"sizes of the networks, and defaults of other options: {', '.join(PRESETS)}; default: those of --init, "
        "or paper",
    )
    what.add_argument(
        "--config",
        metavar="FILE",
        help="YAML or JSON with options by their names here; the command line goes before it",
    )
    what.add_argument("--init", metavar="MODEL", help="let the (first) stage start from this saved model or Hub id")
    what.add_argument(
        "--fine-tune",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on with all that --init has learned; otherwise stage autoencoder starts its codebooks anew, and stage "
        "encoder EncoderB1 from EncoderA1",
    )

    data = parser.add_argument_group("data")
    data.add_argument("--split", default=defaults["split"], help="split of a dataset on the Hub")
    data.add_argument(
        "--streaming", action=argparse.BooleanOptionalAction, default=False, help="read the dataset while training"
    )
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
        type=_one_of(*MASK_KINDS),
        metavar="KIND",
        default=list(MASK_KINDS),
        help=f"kinds of masks, drawn in equal shares: {', '.join(MASK_KINDS)}",
    )
    data.add_argument(
        "--workers", type=int, default=defaults["workers"], help="processes that load data, for each training process"
    )
    data.add_argument(
        "--unreadable-limit",
        type=int,
        default=defaults["unreadable_limit"],
        help="images that can't be used are named and left out; more than so many end the run",
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
        "--mixed-precision",
        type=_one_of("no", "bf16", "fp16"),
        metavar="FORMAT",
        help="no, bf16 or fp16 (with a gradient scaler), in place of what accelerate was configured with",
    )
    optimisation.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        default=defaults["tf32"],
        help="let convolutions in float32 use the TensorFloat32 of NVIDIA's GPUs; codebooks never do",
    )
    optimisation.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile the networks (torch.compile)"
    )
    optimisation.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        default=False,
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
        type=_one_of(*LOSS_PRESETS),
        metavar="LOSS",
        default=defaults["loss"],
        help=f"refiner: weights of Eq. (17), {', '.join(LOSS_PRESETS)}; those with lpips or unit_features are "
        "additions to the paper",
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
    following.add_argument(
        "--log-with",
        nargs="+",
        type=_one_of(*TRACKERS, "none"),
        metavar="TRACKER",
        default=list(defaults["log_with"]),
        help=f"where values and pictures go beside metrics.jsonl: {', '.join(TRACKERS)}, or none",
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

    hub = parser.add_argument_group("the Hub")
    hub.add_argument(
        "--push-to-hub",
        metavar="REPO",
        help="push the model of the last stage to this repository, user/name, with a card; the token is that of 'hf "
        "auth login' or HF_TOKEN",
    )
    hub.add_argument(
        "--push-best",
        nargs="?",
        const="best",
        metavar="BRANCH",
        help="also push each model that validates best, to a branch ('best', the same as no value)",
    )
    hub.add_argument(
        "--hub-private",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="if the repository is made, make it private",
    )
    return parser


def parse_options(arguments: Sequence[str] | None = None) -> list[TrainingOptions]:
    """The options of each stage to run, in order.

    Args:
        arguments: of the command line; None: this process's.

    Raises:
        InvalidInputError: a name or a value is none that there is.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    refuse_tokens(arguments)
    parser = build_parser()
    early = _Parser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    early.add_argument("--preset")
    config = early.parse_known_args(arguments)[0].config
    if config is not None:
        arguments = [*_arguments_of_file(Path(config), parser), *arguments]
    preset = early.parse_known_args(arguments)[0].preset
    of_preset = PRESET_DEFAULTS.get(preset, {})
    parser.set_defaults(**{name: [value] if name in _PER_STAGE else value for name, value in of_preset.items()})
    values = vars(parser.parse_args(arguments))
    del values["config"]
    stages = TRAINING_STAGES if values["stage"] == ["all"] else tuple(values["stage"])
    if stages != tuple(stage for stage in TRAINING_STAGES if stage in stages):
        raise InvalidInputError(f"--stage must be all, or stages in the order {', '.join(TRAINING_STAGES)}.")
    for name in ("mask_kinds", "adam_betas", "log_with"):
        values[name] = tuple(values[name])
    if values["fine_tune"] and not values.get("init"):
        raise InvalidInputError("--fine-tune needs the model to go on with: give it with --init.")
    if values.get("preset") is None and not values.get("init"):
        values["preset"] = "paper"
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
                "init": values.get("init") if position == 0 else None,  # later stages start from the one before them
                **{name: values[name][position if len(values[name]) > 1 else 0] for name in _PER_STAGE},
            }
        )
        for position, stage in enumerate(stages)
    ]


def _arguments_of_file(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """What would be written on the command line for what the file says."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInputError(f"There is no file {path}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise InvalidInputError(f"{path} must hold names and values, such as 'batch_size: 6'.")
    actions = {name: action for action in parser._actions for name in action.option_strings}
    arguments = []
    for key, value in values.items():
        name = f"--{flag(str(key))}"
        if name not in actions or name in ("--help", "--config"):
            known = sorted(other.lstrip("-").replace("-", "_") for other in actions)
            raise InvalidInputError(f"{path}: there is no option {key}{_suggestion(str(key), known)}")
        if value is None:
            continue
        if isinstance(actions[name], argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                raise InvalidInputError(f"{path}: {key} must be true or false, not {value!r}.")
            arguments.append(name if value else f"--no-{name[2:]}")
            continue
        several = value if isinstance(value, list) else [value]
        # YAML takes the word no for false.
        arguments += [name, *("no" if single is False else str(single) for single in several)]
    return arguments


def to_file(options: TrainingOptions) -> str:
    """The options as YAML that --config takes, all but those of continuing a run."""
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(options).items()
        if value is not None and name != "resume"
    }
    return yaml.safe_dump(values, sort_keys=False)

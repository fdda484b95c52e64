"""Which options a run may be continued with, and which would make it another run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ..errors import InvalidInputError
from .checkpoints import Progress
from .command_line import to_file
from .options import TrainingOptions, flag

CONFIG_FILE = "config.yaml"

# With another value it would be another run: it would not fit the checkpoint, or change what is drawn for a step.
_OF_THE_RUN = (
    "preset",
    "fine_tune",
    "split",
    "streaming",
    "crop_size",
    "mask_size",
    "mask_kinds",
    "seed",
    "quantization_warmup",
)
# On other images values of the validation are not to be compared with those before.
OF_VALIDATION = ("validation", "validation_split", "validation_images", "validation_size")
# Another value changes the run from here on: allowed, and told.
_CHANGEABLE = (
    "init",
    "dataset",
    "steps",
    "learning_rate",
    "final_learning_rate",
    "learning_rate_warmup",
    "adam_betas",
    "max_gradient_norm",
    "restart_every",
    "credibility_quantile",
    "low_credibility_weight",
    "coarse_weight",
    "code_weight",
    "loss",
    "feature_window",
    "mixed_precision",
    "micro_batch_size",
    "ema_decay",
    *OF_VALIDATION,
)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While it is entered no other run may be in `folder`; the lock of one that was killed is gone with it.

    Folders that did not exist and in which nothing was written are removed again.

    Raises:
        InvalidInputError: there is one.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".lock"
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InvalidInputError(f"Another run is writing to {folder}: wait for it, or stop it first.") from None
    try:
        yield
    finally:
        lock.release()
        if made and list(folder.iterdir()) == [file]:
            file.unlink()
            for path in made:
                if not any(path.iterdir()):
                    path.rmdir()


def save_options(folder: Path, options: TrainingOptions) -> None:
    """Write the options of the run in `folder`, whole or not at all."""
    partial = folder / f"{CONFIG_FILE}.partial"
    partial.write_text(to_file(options), encoding="utf-8")
    partial.replace(folder / CONFIG_FILE)


def check_options(folder: Path, options: TrainingOptions) -> dict[str, str]:
    """Compare the options of the run in `folder` with those it is to be continued with.

    Returns:
        A sentence for each option that differs and changes the run. All others, such as how often it is logged, change
        nothing.

    Raises:
        InvalidInputError: a difference would make it another run.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        before = None
    if not isinstance(before, dict):
        raise InvalidInputError(f"{path} is torn: delete it, and be sure to give the options that the run had.")
    now = yaml.safe_load(to_file(options))
    another = [name for name in _OF_THE_RUN if before.get(name) != now.get(name)]
    if bool(before.get("ema_decay")) != bool(now["ema_decay"]):
        another.append("ema_decay")
    if another:
        name = another[0]
        raise InvalidInputError(
            f"{folder} holds a run with {_written(name, before.get(name))}, not {_written(name, now.get(name))}: "
            "continue it with that, or choose another --output."
        )
    return {
        name: f"Continuing with {_written(name, now.get(name))} in place of {_written(name, before.get(name))}."
        for name in _CHANGEABLE
        if before.get(name) != now.get(name)
    }


def check_batch(folder: Path, options: TrainingOptions, progress: Progress, processes: int) -> None:
    """Refuse to continue with another global batch; another number of processes with the same one is fine.

    Raises:
        InvalidInputError: with what to give instead.
    """
    now = options.batch_size * processes
    if progress.global_batch == now:
        return
    fits = progress.global_batch % processes == 0
    remedy = f"give --batch-size {progress.global_batch // processes}" if fits else "choose a number that divides it"
    raise InvalidInputError(
        f"{folder} holds a run with {progress.global_batch} images a step ({progress.processes} processes), "
        f"and {processes} processes with --batch-size {options.batch_size} make {now}: {remedy}."
    )


def enter_whole_epoch(options: TrainingOptions, progress: Progress, processes: int) -> tuple[Progress, str | None]:
    """Where to go on with a streamed set, which other processes or workers read in another order.

    Returns:
        The progress to go on from, and a sentence if it is another one.
    """
    now, before = (processes, max(1, options.workers)), (progress.processes, max(1, progress.workers))  # 0 reads as 1
    if not options.streaming or progress.batch == 0 or now == before:
        return progress, None
    remark = (
        f"The stream was read by {before[0]} processes with {before[1]} workers each, and is by "
        f"{now[0]} with {now[1]} now: what is left of epoch {progress.epoch} is passed over, and the next one begins."
    )
    return replace(progress, epoch=progress.epoch + 1, batch=0), remark


def _written(name: str, value: Any) -> str:
    """An option as it is written on the command line."""
    if value is None:
        return f"no --{flag(name)}"
    if isinstance(value, bool):
        return f"--{flag(name)}" if value else f"--no-{flag(name)}"
    return " ".join([f"--{flag(name)}", *map(str, value if isinstance(value, list) else [value])])

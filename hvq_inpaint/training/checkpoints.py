"""Checkpoints of a running stage: complete or absent, seen to be intact before they are used, the newest few and the
best one kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from ..errors import InvalidInputError
from .stopping import LossLevel
from .together import SharedError, together

_NAME = re.compile(r"step-(\d+)")
_PROGRESS = "progress.json"
_AVERAGE = "average.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    batch: int = 0  # global batches of the epoch that were used
    best_step: int | None = None  # of the best validation so far
    best_value: float | None = None  # its PSNR in dB
    processes: int = 1
    workers: int = 1  # that load data, for each process
    global_batch: int = 0  # images a step, over all processes
    images: int | None = None  # of the set, unless it is streamed
    loss_level: LossLevel = field(default_factory=LossLevel)  # by which it is judged whether the loss diverges


def checkpoint_folders(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    found = [(int(match.group(1)), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def save_checkpoint(
    accelerator: Accelerator, folder: Path, progress: Progress, keep: int, average: AveragedModel | None = None
) -> None:
    """Write a checkpoint under another name and rename it once it is complete; then delete the oldest beyond `keep`,
    but for the best one, and the newest from before a rise of the loss.

    Args:
        average: the moving average of the weights, if the run keeps one.

    Raises:
        SharedError: it can't be written, on any process; nothing is left of it, and older ones are untouched.
    """
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f"partial-{progress.step:08d}"
    is_main = accelerator.is_main_process
    try:
        with together(), _told(folder, progress):
            if is_main:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
        with together(), _told(folder, progress):
            accelerator.save_state(str(partial))
            if average is not None and is_main:
                # Apart from accelerate, which would pickle these weights.
                weights = {name: tensor.contiguous() for name, tensor in average.state_dict().items()}
                save_file(weights, partial / _AVERAGE)
        with together(), _told(folder, progress):
            if is_main:
                digests = {path.name: _digest(path) for path in partial.iterdir()}
                text = json.dumps({**dataclasses.asdict(progress), "sha256": digests}, indent=2)
                (partial / _PROGRESS).write_text(text, encoding="utf-8")
                shutil.rmtree(final, ignore_errors=True)
                partial.rename(final)
    except SharedError:
        if is_main:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    with together():
        if is_main:
            _prune(folder, progress, keep)


@contextmanager
def _told(folder: Path, progress: Progress) -> Iterator[None]:
    """A checkpoint that can't be written is told in a sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # as Python, safetensors and torch.save tell a full disk
        if is_of_a_worker(error):
            raise
        raise InvalidInputError(
            f"The checkpoint of step {progress.step} can't be written ({str(error).splitlines()[0]}): make room. "
            f"{way_back(folder, progress)}."
        ) from None


def _prune(folder: Path, progress: Progress, keep: int) -> None:
    """Delete all but the newest `keep`, the best one and that from before a rise of the loss."""
    best = None if progress.best_step is None else folder / f"step-{progress.best_step:08d}"
    kept = (*checkpoint_folders(folder)[-keep:], best, before_rise(folder, progress))
    for old in checkpoint_folders(folder):
        if old not in kept:
            old.rename(folder / f"partial-{old.name}")  # a kill while deleting leaves no half checkpoint
    for leftover in folder.glob("partial-*"):  # these, and those of runs that were killed while saving
        shutil.rmtree(leftover)


def find_checkpoint(accelerator: Accelerator, folder: Path, wanted: str) -> Path | None:
    """The checkpoint to continue from; the same on all processes.

    Args:
        wanted: `auto`, the newest intact one; or a checkpoint's path, or its name in `folder`.

    Returns:
        None if `wanted` is `auto` and there is no checkpoint at all.

    Raises:
        SharedError: the wanted one, or every one, is missing or damaged.
    """
    found: list[Path | None] = [None]
    with together():
        if accelerator.is_main_process:
            found = [_find(folder, wanted)]
    broadcast_object_list(found)
    return found[0]


def _find(folder: Path, wanted: str) -> Path | None:
    folders = checkpoint_folders(folder)
    if wanted == "auto":
        damaged = []
        for candidate in reversed(folders):
            problem = damage(candidate)
            if problem is None:
                return candidate
            print(f"The checkpoint {candidate} is left out: {problem}.")
            damaged.append(problem)
        if damaged:
            raise InvalidInputError(
                f"None of the checkpoints in {folder} is intact ({damaged[0]}): delete them to start anew."
            )
        return None
    chosen = next((path for path in (Path(wanted), folder / wanted) if path.is_dir()), None)
    if chosen is None or chosen.resolve() not in [path.resolve() for path in folders]:
        names = ", ".join(path.name for path in folders) or "none"
        raise InvalidInputError(f"There is no checkpoint {wanted} in {folder}; there are: {names}.")
    if problem := damage(chosen):
        raise InvalidInputError(f"The checkpoint {chosen} can't be used: {problem}; --resume auto takes another one.")
    return chosen


def abandon_later(folder: Path, checkpoint: Path) -> None:
    """Set aside the checkpoints in `folder` that are later than the one a run goes on from.

    It makes a branch of its own: were they still there, the next --resume auto would go on with them, and damaged ones
    would count among the newest that are kept.
    """
    for later in checkpoint_folders(folder):
        if later.name > checkpoint.name:
            aside = folder / f"{'damaged' if damage(later) else 'abandoned'}-{later.name}"
            shutil.rmtree(aside, ignore_errors=True)
            later.rename(aside)
            print(f"The later checkpoint {later.name} is kept as {aside.name}.")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None if they are those that were written."""
    try:
        expected = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return f"{_PROGRESS} is missing or torn"
    for name, digest in expected.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _digest(checkpoint / name) != digest:
            return f"{name} is not what was written"
    return None


def read_progress(checkpoint: Path) -> Progress:
    """Where the run of an intact checkpoint stood."""
    values = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
    known = {field.name: values[field.name] for field in dataclasses.fields(Progress) if field.name in values}
    known["loss_level"] = LossLevel(**known.get("loss_level", {}))
    return Progress(**known)


def load_checkpoint(accelerator: Accelerator, checkpoint: Path, average: AveragedModel | None = None) -> Progress:
    """Load an intact checkpoint into the prepared objects, and into the moving average if there is one."""
    accelerator.load_state(str(checkpoint))
    if average is not None:
        average.load_state_dict(load_file(checkpoint / _AVERAGE, device=str(accelerator.device)))
    return read_progress(checkpoint)


def way_back(folder: Path, progress: Progress, has_risen: bool = False) -> str:
    """What to say of going on after step `progress.step`: the checkpoint to do it from, and how; without a full stop.

    Args:
        has_risen: whether the loss has, so that the checkpoint should be one from before.
    """
    folders = checkpoint_folders(folder)
    if not folders:
        return "There is no checkpoint yet: start anew"
    before = before_rise(folder, progress) if has_risen else None
    if before is not None:
        return f"The last good checkpoint, from before the loss rose, is {before}. Continue with --resume {before.name}"
    return f"The last good checkpoint is {folders[-1]}. Continue with --resume auto"


def before_rise(folder: Path, progress: Progress) -> Path | None:
    """The newest checkpoint in `folder` that is not later than the step at which the mean loss was lowest."""
    level = progress.loss_level
    if level.lowest is None:
        return None
    last = f"step-{progress.step - level.steps_since_lowest:08d}"
    return max((path for path in checkpoint_folders(folder) if path.name <= last), default=None)


def is_of_a_worker(error: BaseException) -> bool:
    """Whether PyTorch says by it that a process that loads data was killed, which it may say at any moment."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

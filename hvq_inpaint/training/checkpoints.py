"""Checkpoints of a running stage: complete or absent, the newest few kept."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

_NAME = re.compile(r"step-(\d+)")
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: optimiser steps done, the epoch, and the batches of it that were used."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


def checkpoint_folders(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    found = [(int(match.group(1)), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: Progress, keep: int) -> None:
    """Write a checkpoint under another name and rename it once it is complete; then delete the oldest beyond `keep`."""
    final = folder / f"step-{progress.step:08d}"
    partial = folder / f"partial-{progress.step:08d}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / _PROGRESS).write_text(json.dumps(vars(progress)), encoding="utf-8")
        partial.rename(final)
        for old in checkpoint_folders(folder)[:-keep]:
            old.rename(folder / f"partial-{old.name}")  # a kill while deleting leaves no half checkpoint
        for leftover in folder.glob("partial-*"):  # these, and those of runs that were killed while saving
            shutil.rmtree(leftover)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path) -> Progress | None:
    """Load the newest checkpoint in `folder` into the prepared objects; None if there is none."""
    folders = checkpoint_folders(folder)
    if not folders:
        return None
    accelerator.load_state(str(folders[-1]))
    return Progress(**json.loads((folders[-1] / _PROGRESS).read_text(encoding="utf-8")))

"""Many photographs in files: each found its mask, filled and written; a bad one does not stop the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .data import list_images
from .errors import InvalidInputError
from .files import SAVE_OPTIONS, all_or_nothing, check_format, check_targets, lossless_suffix, save_image
from .hole import load_mask, mask_of_alpha
from .images import Photograph, load_photograph

if TYPE_CHECKING:
    from .filling import InpaintResult
    from .inpainter import HVQInpainter

_PICTURES = ("damaged", "coarse", "refined", "composite")
_MAPS = ("global_codes", "local_codes", "credibility")


@dataclass(frozen=True)
class Task:
    """One photograph to be filled."""

    image: Path
    mask: Path | None  # None: what is transparent in the image
    out: Path  # without its suffix, unless that was chosen
    stages: Path | None = None  # folder for every intermediate
    keep_format: bool = False
    suffix: str | None = None  # of the result; None: lossless, or that of `image`

    def output(self, mode: str) -> Path:
        """Where the first result goes, for a photograph of this mode."""
        kept = self.image.suffix if self.keep_format and self.image.suffix.lower() in SAVE_OPTIONS else None
        return self.out.with_name(self.out.name + (self.suffix or kept or lossless_suffix(mode)))

    def outputs(self, mode: str, num_results: int) -> list[Path]:
        """Where all results go."""
        first = self.output(mode)
        return [first, *(first.with_name(f"{first.stem}-{n}{first.suffix}") for n in range(2, num_results + 1))]

    def stage_files(self) -> list[Path]:
        """Those intermediates that there always are."""
        if self.stages is None:
            return []
        names = [f"{name}.png" for name in _PICTURES] + [f"{name}.npy" for name in _MAPS]
        return [self.stages / name for name in (*names, "crops.json")]


@dataclass
class Report:
    """What became of the files."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)  # photographs whose result was there already
    problems: list[tuple[Path, str]] = field(default_factory=list)  # photograph and sentence

    def add(self, other: Report) -> None:
        self.written += other.written
        self.skipped += other.skipped
        self.problems += other.problems


def tasks_of_folder(
    folder: Path, masks: Path | None, out: Path, stages: Path | None, keep_format: bool, num_results: int = 1
) -> tuple[list[Task], Report]:
    """The tasks for all photographs of a folder, sub-folders included; and those that can't be done.

    Args:
        masks: a folder with a mask for each photograph, of the same name but for the suffix, in the same sub-folder; a
            file, for all of them; or None, where the photographs' own transparency says what is to be filled.
    """
    others = [other.resolve() for other in (masks, out, stages) if other is not None]
    inside = [other for other in others if folder.resolve() in other.parents]

    def is_another(path: Path) -> bool:  # masks and results may lie in a sub-folder of the photographs
        return any(other in path.resolve().parents for other in inside)

    photographs = [path for path in list_images(folder) if not is_another(path)]
    if not photographs:
        raise InvalidInputError(f"There is no image in {folder}.")
    by_stem: dict[Path, list[Path]] = {}
    if masks is not None and masks.is_dir():
        for path in list_images(masks):
            by_stem.setdefault(path.relative_to(masks).with_suffix(""), []).append(path)
    tasks, report, taken = [], Report(), {}
    for path in photographs:
        stem = path.relative_to(folder).with_suffix("")
        candidates = by_stem.get(stem, []) if masks is not None and masks.is_dir() else [masks]
        names = [os.path.normcase(stem)]
        names += [os.path.normcase(stem.with_name(f"{stem.name}-{number}")) for number in range(2, num_results + 1)]
        if earlier := next((taken[name] for name in names if name in taken), None):
            report.problems.append((path, f"Its result would have the name of one for {earlier}: rename one of them."))
        elif len(candidates) > 1:
            report.problems.append((path, f"It has {len(candidates)} masks, {' and '.join(map(str, candidates))}."))
        elif not candidates:
            report.problems.append((path, f"There is no mask for it in {masks}, which should be named {stem}.png."))
        else:
            taken.update(dict.fromkeys(names, path))
            tasks.append(Task(path, candidates[0], out / stem, stages / stem if stages else None, keep_format))
    return tasks, report


def load(task: Task, num_results: int, overwrite: bool) -> tuple[Photograph, np.ndarray]:
    """The photograph and the mask of a task.

    Raises:
        InvalidInputError: one can't be used, or the results can't be written.
    """
    photograph = load_photograph(task.image)
    missing = mask_of_alpha(photograph) if task.mask is None else load_mask(task.mask, photograph.size)
    outputs = task.outputs(photograph.mode, num_results)
    check_format(outputs[0], photograph, task.image)
    check_targets(outputs + task.stage_files(), overwrite)
    return photograph, missing


def write(task: Task, result: InpaintResult, mode: str) -> list[Path]:
    """Write all files of a task, or none; returns the paths of the results."""
    outputs = task.outputs(mode, len(result.images))
    with all_or_nothing() as partial:
        for path, image in zip(outputs, result.images, strict=True):
            save_image(image, partial(path), path.suffix.lower())
        if task.stages is not None:
            for name in _PICTURES:
                picture = result.stages[name]
                if name == "composite" and picture.mode == "CMYK":  # which PNG does not hold
                    picture = picture.convert("RGB")
                save_image(picture, partial(task.stages / f"{name}.png"), ".png")
            maps = {name: result.stages[name] for name in _MAPS}
            if len(result.crops) > 1:
                for number, crop in enumerate(result.crops, start=1):
                    maps |= {f"{name}-{number}": getattr(crop, name) for name in _MAPS}
            for name, array in maps.items():
                with partial(task.stages / f"{name}.npy").open("wb") as file:
                    np.save(file, array)
            places = [{"box": crop.box, "working_size": crop.working_size} for crop in result.crops]
            partial(task.stages / "crops.json").write_text(json.dumps(places), encoding="utf-8")
    return outputs


def inpaint_files(
    model: HVQInpainter,
    tasks: Sequence[Task],
    num_results: int,
    overwrite: bool,
    batch_size: int,
    progress: Any,
    **options: Any,
) -> Report:
    """Fill `tasks`, `batch_size` at a time, and write each as soon as it is filled.

    Args:
        progress: has `update(number)`, as a tqdm bar.
        options: of `HVQInpainter.inpaint`.
    """
    report = Report()
    for start in range(0, len(tasks), batch_size):
        ready = []
        for task in tasks[start : start + batch_size]:
            try:
                # All results of a photograph appear together, whichever its mode lets them end in.
                there = [task.output(mode) for mode in ("RGB", "CMYK") if task.output(mode).is_file()]
                if there and not overwrite:
                    if there[0].samefile(task.image):
                        raise InvalidInputError("Its result would replace it; choose another folder, or --overwrite.")
                    report.skipped.append(task.image)
                    progress.update(1)
                    continue
                ready.append((task, *load(task, num_results, overwrite)))
            except (InvalidInputError, OSError) as error:
                report.problems.append((task.image, str(error)))
                progress.update(1)
        for task, photograph, result in _filled(
            model, ready, report, num_results=num_results, batch_size=batch_size, **options
        ):
            try:
                report.written += write(task, result, photograph.mode)
            except (InvalidInputError, OSError) as error:  # too large for the format; a full disk
                report.problems.append((task.image, str(error)))
        progress.update(len(ready))
    return report


def _filled(
    model: HVQInpainter, ready: list[tuple[Task, Photograph, np.ndarray]], report: Report, **options: Any
) -> Iterator[tuple[Task, Photograph, InpaintResult]]:
    """Each with its result, together if that goes, else one by one, so that only those that can't be filled fail."""
    if not ready:
        return
    tasks, photographs, masks = (list(part) for part in zip(*ready, strict=True))
    # Without a mask the model takes the transparency, and makes what it fills opaque.
    masks = [mask if task.mask is not None else None for task, mask in zip(tasks, masks, strict=True)]
    try:
        yield from zip(tasks, photographs, model.inpaint(photographs, masks, **options), strict=True)
    except (InvalidInputError, torch.OutOfMemoryError) as error:
        if len(ready) == 1:
            report.problems.append((tasks[0].image, str(error)))
            return
        for one in ready:
            yield from _filled(model, [one], report, **options)

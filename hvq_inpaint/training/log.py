"""What a run tells of itself: values to trackers, to metrics.jsonl and to the progress bar; grids of pictures."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from tqdm.auto import tqdm

from .options import TrainingOptions
from .stages import Logs
from .together import together

METRICS_FILE = "metrics.jsonl"
PROJECT = "hvq-inpaint"  # for trackers
WANDB_ID_FILE = "wandb-id.txt"


class TrainingLog:
    """The log of one stage.

    Args:
        folder: of the stage; metrics.jsonl and samples/ go there.
        first_step: steps done before; what a run that was killed had logged beyond them is dropped.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, options: TrainingOptions, first_step: int = 0) -> None:
        self.accelerator, self.folder, self.options = accelerator, folder, options
        with together():
            if accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                _drop_beyond(folder / METRICS_FILE, first_step)
            if accelerator.log_with:
                self._start_trackers(first_step)
        self.bar = tqdm(
            total=options.steps,
            initial=first_step,
            desc=options.stage,
            unit="step",
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
        )
        self.since, self.since_step, self.data_seconds = time.perf_counter(), None, 0.0

    def _start_trackers(self, first_step: int) -> None:
        folder, settings = self.folder, {"tensorboard": {"purge_step": first_step + 1}}  # of a run that was killed
        if "wandb" in self.options.log_with and self.accelerator.is_main_process:
            settings["wandb"] = {
                "name": f"{folder.parent.resolve().name}-{self.options.stage}",
                "dir": str(folder),
                "id": _run_id(folder / WANDB_ID_FILE),
                "resume": "allow",
            }
        self.accelerator.init_trackers(
            # No slash: some trackers take the project's name for a name only, TensorBoard for that of a folder.
            PROJECT,
            config={name: str(value) for name, value in dataclasses.asdict(self.options).items()},
            init_kwargs=settings,
        )

    def is_due(self, step: int) -> bool:
        """Whether the values of this step are logged."""
        return step % self.options.log_every == 0 or step == self.options.steps

    def step(self, step: int, values: Logs, same: dict[str, float], events: Logs, data_seconds: float) -> None:
        """Log a step; all processes call it.

        Args:
            values: of this process, logged as their means over all processes, every so many steps.
            same: those that all processes have alike, logged beside them.
            events: such as restarts of codes, alike on all processes, logged whenever there are any.
            data_seconds: how long the step waited for its batch.
        """
        self.bar.update()
        self.data_seconds += data_seconds
        if self.since_step is None:  # the first step is not timed: it may compile
            self.since, self.since_step, self.data_seconds = time.perf_counter(), step, 0.0
        row = {name: float(value) for name, value in events.items()}
        if self.is_due(step):
            now = time.perf_counter()
            steps = step - self.since_step
            row.update(self._means(values), **same)
            if steps:
                images = steps * self.options.batch_size * self.accelerator.num_processes
                row["images_per_second"] = images / (now - self.since)
                row["data_seconds"] = self.data_seconds / steps
            self.since, self.since_step, self.data_seconds = now, step, 0.0
            self.bar.set_postfix({"loss": f"{row['loss']:.4f}", "img/s": f"{row.get('images_per_second', 0):.1f}"})
        if row:
            self._write(step, row)

    def validation(self, step: int, values: dict[str, float], grid: Image.Image | None) -> None:
        """Log a validation and, on the main process, its pictures."""
        self._write(step, values)
        folder = self.folder / "samples"
        with together():
            if grid is not None:
                folder.mkdir(parents=True, exist_ok=True)
                grid.save(folder / f"step-{step:08d}.png")
        if grid is None:
            return
        if self.accelerator.log_with:
            for tracker in self.accelerator.trackers:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                if hasattr(tracker, "log_images"):
                    tracker.log_images({"samples": np.asarray(grid)[None]}, step=step, **layout)
        self.bar.write("  ".join(f"{name.removeprefix('validation/')} {value:.2f}" for name, value in values.items()))

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """What is done within it is no training, and does not count in images a second."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start

    def close(self) -> None:
        """End the bar and the trackers."""
        self.bar.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _means(self, values: Logs) -> dict[str, float]:
        names = sorted(values)
        stacked = torch.stack([values[name].float().to(self.accelerator.device) for name in names])
        return dict(zip(names, self.accelerator.reduce(stacked, reduction="mean").tolist(), strict=True))

    def _write(self, step: int, row: dict[str, float]) -> None:
        with together():
            if self.accelerator.is_main_process:
                self._write_here(step, row)

    def _write_here(self, step: int, row: dict[str, float]) -> None:
        if self.accelerator.log_with:
            self.accelerator.log(row, step=step)
        with (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, but for one that a kill cut off; none if there is no such file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def _run_id(file: Path) -> str:
    """The id that a run has at a tracker, the same one whenever it is continued."""
    if not file.is_file():
        file.write_text(uuid.uuid4().hex, encoding="utf-8")
    return file.read_text(encoding="utf-8")


def _drop_beyond(path: Path, step: int) -> None:
    """Keep the rows up to `step`; a row that a kill cut off is dropped as well."""
    if not path.is_file():
        return
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)

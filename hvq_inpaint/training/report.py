"""What came of a run: a summary of each stage, and a report with curves of all of them, made of what was logged."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..inpainter import TRAINING_STAGES
from .checkpoints import Progress
from .command_line import to_file
from .log import METRICS_FILE, read_rows
from .options import TrainingOptions, flag
from .unreadable import UNREADABLE_FILE
from .validation import GRID_COLUMNS

REPORT_FILE = "training_report.md"
SUMMARY_FILE = "summary.json"

_TITLES = {
    "autoencoder": "Stage 1: the hierarchical VQ-VAE on intact images",
    "encoder": "Stage 2: EncoderB1 with vector credibility",
    "refiner": "Stage 3: the multi-dilation refiner",
}
# Options that say where a run was, not what it did.
_NOT_REPORTED = {"output", "resume", "stage", "vgg_weights", "lpips_weights", "log_with"}
# Those that may be paths on this machine.
_PATHS = {"dataset", "validation", "init"}
_NOT_ON_CARDS = {"push_to_hub", "push_best", "hub_private"}
# Panels of the curves: a title, an axis, and the beginnings of the names that belong into it.
_PANELS = (
    ("loss", "loss (log)", ("loss",)),
    ("validation", "PSNR (dB)", ("validation/",)),
    ("codebooks in a batch", "perplexity", ("codebook/",)),
    ("vectors of low credibility", "share", ("credibility/low_share",)),
    ("gradient", "norm (log)", ("gradient_norm",)),
    ("speed", "images a second", ("images_per_second",)),
)


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run.

    Attributes:
        seconds: spent in steps, their waiting for data included; validations and checkpoints are not.
        data_share: of `seconds`, waiting for data.
        values: the first and the last of each logged value, and of validations the best, with its step.
        events: sums of what happened now and then, such as restarts of codes.
        options: those that differ from the defaults, as on the command line.
    """

    stage: str
    steps: int
    epochs: float | None
    global_batch: int
    processes: int
    device: str
    torch: str
    seconds: float
    images_per_second: float | None
    data_share: float | None
    values: dict[str, dict[str, float]]
    events: dict[str, float]
    unreadable: int
    left_out: int
    options: dict[str, Any]


def summarise(
    folder: Path, options: TrainingOptions, progress: Progress, epoch_batches: int | None, device: str, torch: str
) -> StageSummary:
    """The summary of the stage in `folder`, after its last step.

    Args:
        progress: where it ended.
        epoch_batches: global batches of an epoch; None if that is not known, as of a stream in its first one.
        device: its name.
        torch: the version.
    """
    rows = read_rows(folder / METRICS_FILE)
    values: dict[str, dict[str, float]] = {}
    events: dict[str, float] = defaultdict(float)
    seconds, waited, before = 0.0, 0.0, 0
    for row in rows:
        step = int(row["step"])
        for name, value in row.items():
            if name.startswith(("data/", "scaler/")) or name.endswith("_restarts"):
                events[name] += value
            elif name not in ("step", "learning_rate", "data_seconds"):
                entry = values.setdefault(name, {"first": value})
                entry["last"] = value
                if name.startswith("validation/") and value > entry.get("best", -math.inf):
                    entry["best"], entry["best_step"] = value, step
        if "loss" in row:
            if "images_per_second" in row:
                seconds += (step - before) * progress.global_batch / row["images_per_second"]
                waited += (step - before) * row["data_seconds"]
            before = step
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    unreadable = folder / UNREADABLE_FILE
    defaults = yaml.safe_load(to_file(TrainingOptions(stage=options.stage, dataset="", output="")))
    return StageSummary(
        stage=options.stage,
        steps=progress.step,
        epochs=round(progress.epoch + progress.batch / epoch_batches, 2) if epoch_batches else None,
        global_batch=progress.global_batch,
        processes=progress.processes,
        device=device,
        torch=torch,
        seconds=seconds,
        images_per_second=statistics.median(speeds) if speeds else None,
        data_share=waited / seconds if seconds else None,
        values=values,
        events={name: total for name, total in events.items() if not name.startswith("data/")},
        unreadable=len(unreadable.read_text(encoding="utf-8").splitlines()) if unreadable.is_file() else 0,
        left_out=round(events["data/left_out"]),
        options={
            name: value
            for name, value in yaml.safe_load(to_file(options)).items()
            if name not in _NOT_REPORTED and value != defaults.get(name)
        },
    )


def summary_text(summary: StageSummary) -> str:
    """A few lines for the terminal."""
    lines = [_sentence(summary)]
    loss = summary.values.get("loss")
    if loss:
        lines.append(f"  loss {loss['first']:.4f} at the start, {loss['last']:.4f} at the end")
    for name, value in summary.values.items():
        if name.startswith("validation/") and name.endswith("_psnr"):
            title = name.removeprefix("validation/").removesuffix("_psnr").replace("_", " ")
            lines.append(f"  {title} {value['last']:.2f} dB, best {value['best']:.2f} at step {value['best_step']}")
    if summary.unreadable:
        lines.append(f"  {summary.unreadable} images could not be used: {UNREADABLE_FILE} names them")
    return "\n".join(lines)


def write_report(output: Path) -> Path:
    """Write training_report.md, with curves where matplotlib is installed, of all stages in `output` that are done."""
    parts = ["## Training", ""]
    for stage in TRAINING_STAGES:
        path = output / stage / SUMMARY_FILE
        if path.is_file():
            summary = StageSummary(**json.loads(path.read_text(encoding="utf-8")))
            parts += _section(summary, output, draw_curves(output, stage))
    report = output / REPORT_FILE
    partial = report.with_suffix(".partial")
    partial.write_text("\n".join(parts), encoding="utf-8")
    partial.replace(report)
    return report


def card_facts(output: Path, options: TrainingOptions) -> dict[str, Any]:
    """What a run knows for the card of its model: on what, and how, its stages were trained.

    Of folders only the last part of the name is told: where they lie is nobody's business.
    """
    parts = ["Trained by the command `train_accelerate.py` of hvq-inpaint."]
    for stage in TRAINING_STAGES[: TRAINING_STAGES.index(options.stage) + 1]:
        path = output / stage / SUMMARY_FILE
        if path.is_file():
            summary = StageSummary(**json.loads(path.read_text(encoding="utf-8")))
            told = ", ".join(
                f"`{_as_given(name, _public(name, value))}`"
                for name, value in summary.options.items()
                if name not in _NOT_ON_CARDS
            )
            parts.append(f"{_sentence(summary)} On {summary.device}, torch {summary.torch}. {told}.")
            best = [
                f"{name.removeprefix('validation/').replace('_psnr', '').replace('_', ' ')} {value['last']:.2f}"
                for name, value in summary.values.items()
                if name.startswith("validation/") and name.endswith("_psnr")
            ]
            if best:
                parts.append(
                    f"PSNR in dB at its end, on {options.validation_images} held-out images of "
                    f"{options.validation_size} pixels: {', '.join(best)}."
                )
    facts: dict[str, Any] = {"training": "\n\n".join(parts)}
    if not Path(options.dataset).expanduser().exists() and options.dataset.count("/") == 1:
        facts["datasets"] = (options.dataset,)
    return facts


def _public(name: str, value: Any) -> Any:
    """An option's value without the folder that a path lies in."""
    is_path = name in _PATHS and isinstance(value, str) and Path(value).expanduser().exists()
    return Path(value).name if is_path else value


def save_summary(summary: StageSummary, folder: Path) -> None:
    """Write summary.json into the stage's folder."""
    (folder / SUMMARY_FILE).write_text(json.dumps(dataclasses.asdict(summary), indent=2) + "\n", encoding="utf-8")


def draw_curves(output: Path, stage: str) -> Path | None:
    """Draw what was logged of a stage; returns the picture, or None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    series = _series(read_rows(output / stage / METRICS_FILE))
    panels = []
    for title, axis, beginnings in _PANELS:
        names = [name for name in series if name.startswith(beginnings) and not name.endswith(("_usage", "_restarts"))]
        if axis == "PSNR (dB)":
            names = [name for name in names if name.endswith("_psnr")]
        if names:
            panels.append((title, axis, names))
    columns = min(3, len(panels)) or 1
    lines = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(4.2 * columns, 3 * lines), layout="constrained", dpi=110)
    for position, (title, axis, names) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, position + 1)
        for name in names:
            steps, values = zip(*series[name], strict=True)
            label = name.split("/")[-1].removesuffix("_psnr").removesuffix("_perplexity").replace("_", " ")
            marker = "." if len(steps) < 30 else None
            axes.plot(steps, values, label="whole" if name == "loss" else label, linewidth=1.2, marker=marker)
        if axis.endswith("(log)"):
            axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(axis, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=7)
    path = output / f"{Path(REPORT_FILE).stem}-{stage}.png"
    figure.savefig(path)
    return path


def _series(rows: Iterable[dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if name != "step":
                series[name].append((row["step"], value))
    return series


def _sentence(summary: StageSummary) -> str:
    parts = [f"{summary.steps} steps of {summary.global_batch} images"]
    if summary.processes > 1:
        parts.append(f"by {summary.processes} processes")
    if summary.epochs is not None:
        parts.append(f"({summary.epochs:g} epochs)")
    if summary.seconds and summary.images_per_second:
        parts.append(f"in {_duration(summary.seconds)}, {summary.images_per_second:.3g} images a second")
    sentence = " ".join(parts)
    if summary.data_share is not None:
        sentence += f", {100 * summary.data_share:.1f} % of the time waiting for data"
    return f"Stage {summary.stage}: {sentence}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _section(summary: StageSummary, output: Path, curves: Path | None) -> list[str]:
    lines = [
        f"### {_TITLES[summary.stage]}",
        "",
        f"{_sentence(summary)} On {summary.device}, torch {summary.torch}.",
        "",
    ]
    if summary.options:
        told = ", ".join(f"`{_as_given(name, value)}`" for name, value in summary.options.items())
        lines += [f"Options other than the defaults: {told}.", ""]
    validated = {name: value for name, value in summary.values.items() if name.startswith("validation/")}
    if validated:
        lines += ["| validation | first | last | best | at step |", "|---|---:|---:|---:|---:|"]
        for name, value in validated.items():
            title = name.removeprefix("validation/").replace("_psnr", " PSNR (dB)").replace("_", " ")
            figures = " | ".join(f"{value[key]:.2f}" for key in ("first", "last", "best"))
            lines.append(f"| {title} | {figures} | {value['best_step']:.0f} |")
        lines.append("")
    lines += ["| logged | first | last |", "|---|---:|---:|"]
    for name, value in summary.values.items():
        if name not in validated:
            lines.append(f"| {name} | {value['first']:.4g} | {value['last']:.4g} |")
    lines.append("")
    for name, total in summary.events.items():
        lines += [f"{name}: {total:.0f} in all.", ""]
    if summary.unreadable or summary.left_out:
        lines += [
            f"{summary.unreadable} images could not be used; {summary.left_out} were left out at the ends of epochs, "
            "too few for a whole batch.",
            "",
        ]
    if curves is not None:
        lines += [f"![Curves of stage {summary.stage}]({curves.relative_to(output).as_posix()})", ""]
    grids = sorted((output / summary.stage / "samples").glob("step-*.png"))
    if grids:
        lines += [
            f"Held-out images at the end, from the left: {', '.join(GRID_COLUMNS)}.",
            "",
            f"![Grid of stage {summary.stage}]({grids[-1].relative_to(output).as_posix()})",
            "",
        ]
    return lines


def _as_given(name: str, value: Any) -> str:
    """An option as it is written on the command line."""
    if isinstance(value, bool):
        return f"--{flag(name)}" if value else f"--no-{flag(name)}"
    return f"--{flag(name)} {' '.join(map(str, value)) if isinstance(value, list) else value}"

"""The summary and the report of a run, of rows that are written by hand; what trackers are told of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from hvq_inpaint.training import report
from hvq_inpaint.training.checkpoints import Progress
from hvq_inpaint.training.command_line import parse_options
from hvq_inpaint.training.log import TrainingLog
from hvq_inpaint.training.options import TrainingOptions
from hvq_inpaint.training.report import draw_curves, save_summary, summarise, summary_text, write_report

ROWS = [
    {"step": 10, "loss": 4.0, "loss/mid": 3.0, "gradient_norm": 2.0, "learning_rate": 1e-4},
    {"step": 15, "codebook/global_restarts": 3.0},
    {"step": 20, "loss": 2.0, "loss/mid": 1.5, "gradient_norm": 1.0, "learning_rate": 2e-4}
    | {"images_per_second": 8.0, "data_seconds": 0.1},
    {"step": 20, "validation/coarse_psnr": 20.0, "validation/global_usage": 0.5},
    {"step": 25, "codebook/global_restarts": 4.0, "data/unreadable": 1.0, "data/left_out": 3.0},
    {"step": 30, "loss": 1.0, "loss/mid": 0.5, "gradient_norm": 0.5, "learning_rate": 1e-4, "data/left_out": 2.0}
    | {"images_per_second": 16.0, "data_seconds": 0.2},
    {"step": 30, "validation/coarse_psnr": 19.0, "validation/global_usage": 0.75},
]


@pytest.fixture
def output(tmp_path) -> Path:
    folder = tmp_path / "encoder"
    (folder / "samples").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 31, "lo')
    (folder / "unreadable.txt").write_text("a.png\tA.png is torn.\n")
    for step in (20, 30):
        Image.new("RGB", (7, 1)).save(folder / "samples" / f"step-{step:08d}.png")
    return tmp_path


def summary_of(output: Path) -> report.StageSummary:
    options = TrainingOptions(stage="encoder", dataset="photographs", output=str(output), steps=30, batch_size=2)
    progress = Progress(step=30, epoch=1, batch=2, processes=2, global_batch=4)
    return summarise(output / "encoder", options, progress, 8, "a GPU", "2.9")


def test_a_summary_holds_what_was_logged(output):
    summary = summary_of(output)
    assert summary.epochs == 1.25
    # 10 steps of 4 images at 8 and at 16 images a second; the first 10 were not timed.
    assert summary.seconds == pytest.approx(5 + 2.5)
    assert summary.data_share == pytest.approx((10 * 0.1 + 10 * 0.2) / 7.5)
    assert summary.images_per_second == 12
    assert summary.values["loss"] == {"first": 4.0, "last": 1.0}
    assert summary.values["validation/coarse_psnr"] == {"first": 20.0, "last": 19.0, "best": 20.0, "best_step": 20}
    assert summary.values["validation/global_usage"]["best_step"] == 30
    assert summary.events == {"codebook/global_restarts": 7.0}
    assert (summary.unreadable, summary.left_out) == (1, 5)
    assert summary.options == {"dataset": "photographs", "steps": 30, "batch_size": 2}


def test_a_few_lines_say_how_it_went(output):
    text = summary_text(summary_of(output))
    assert text.splitlines() == [
        "Stage encoder: 30 steps of 4 images by 2 processes (1.25 epochs) in 8 s, 12 images a second, "
        "40.0 % of the time waiting for data.",
        "  loss 4.0000 at the start, 1.0000 at the end",
        "  coarse 19.00 dB, best 20.00 at step 20",
        "  1 images could not be used: unreadable.txt names them",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (90_000, "25 h 00 min")]
)
def test_times_are_readable(seconds, text):
    assert report._duration(seconds) == text


def test_the_report_has_tables_curves_and_a_grid(output):
    save_summary(summary_of(output), output / "encoder")
    path = write_report(output)
    text = path.read_text()
    for part in (
        "## Training\n\n### Stage 2: EncoderB1",
        "On a GPU, torch 2.9.",
        "`--dataset photographs`, `--steps 30`, `--batch-size 2`.",
        "| coarse PSNR (dB) | 20.00 | 19.00 | 20.00 | 20 |",
        "| loss/mid | 3 | 0.5 |",
        "codebook/global_restarts: 7 in all.",
        "1 images could not be used; 5 were left out",
        "![Grid of stage encoder](encoder/samples/step-00000030.png)",
    ):
        assert part in text, part
    assert "![Curves of stage encoder](training_report-encoder.png)" in text
    assert np.asarray(Image.open(output / "training_report-encoder.png").convert("L")).std() > 10
    assert "Stage 1" not in text and "Stage 3" not in text


def test_every_kind_of_value_has_its_panel(output, monkeypatch):
    from matplotlib.axes import Axes

    drawn: dict[str, list[tuple[list[int], list[float]]]] = {}
    scales: dict[str, str] = {}
    plot, entitle = Axes.plot, Axes.set_title

    def note(axes, steps, values, **how):
        axes.noted = [*getattr(axes, "noted", []), (list(steps), list(values))]
        return plot(axes, steps, values, **how)

    def finish(axes, title, **how):
        drawn[title], scales[title] = axes.noted, axes.get_yscale()
        return entitle(axes, title, **how)

    monkeypatch.setattr(Axes, "plot", note)
    monkeypatch.setattr(Axes, "set_title", finish)
    draw_curves(output, "encoder")
    assert drawn["loss"] == [([10, 20, 30], [4.0, 2.0, 1.0]), ([10, 20, 30], [3.0, 1.5, 0.5])]
    assert drawn["validation"] == [([20, 30], [20.0, 19.0])]
    assert drawn["gradient"] == [([10, 20, 30], [2.0, 1.0, 0.5])]
    assert drawn["speed"] == [([20, 30], [8.0, 16.0])]
    assert scales == {"loss": "log", "validation": "linear", "gradient": "log", "speed": "linear"}
    assert set(drawn) == {"loss", "validation", "gradient", "speed"}


def test_without_matplotlib_there_are_tables_all_the_same(output, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    save_summary(summary_of(output), output / "encoder")
    text = write_report(output).read_text()
    assert "Curves" not in text and "| loss | 4 | 1 |" in text
    assert not list(output.glob("*.png"))


def test_weights_and_biases_goes_on_with_the_same_run(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(Accelerator, "init_trackers", lambda _, project, **more: given.append((project, more)))
    arguments = ["--stage", "encoder", "--preset", "tiny", "--dataset", "x", "--output", "x", "--log-with", "wandb"]
    accelerator = Accelerator()
    accelerator.log_with = ["wandb"]
    for folder in ("one", "one", "another"):
        TrainingLog(accelerator, tmp_path / folder / "encoder", *parse_options(arguments))
    assert {project for project, _ in given} == {"hvq-inpaint"}  # a slash is refused
    assert given[0][1]["config"]["batch_size"] == "4"
    first, again, other = (more["init_kwargs"]["wandb"] for _, more in given)
    assert first == again and first["id"] != other["id"] and first["resume"] == "allow"
    assert (first["name"], other["name"]) == ("one-encoder", "another-encoder")

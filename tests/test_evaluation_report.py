"""JSON, Markdown and the grid of pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import OPTIONS
from PIL import Image

from hvq_inpaint.evaluation.evaluate import measure_records
from hvq_inpaint.evaluation.grid import picture_grid
from hvq_inpaint.evaluation.methods import picture_path
from hvq_inpaint.evaluation.options import PIXEL_METRICS
from hvq_inpaint.evaluation.paper import QUOTED_TABLES
from hvq_inpaint.evaluation.report import gains_table, summary, to_json, to_markdown


def test_the_grid_shows_the_pictures_under_their_titles(model, files, tmp_path):
    options = replace(OPTIONS, buckets=((0.5, 0.6),))
    measure_records(model, files, options, {}, export=tmp_path)
    grid = np.asarray(picture_grid(model, files, options))
    left, top, gap = 22, 22, 4
    assert grid.shape == (top + 2 * 32 + gap, left + 5 * 32 + 4 * gap, 3)
    # Two rows on three photographs: the first, and the second.
    for row, (kind, index) in enumerate((("random_walk", 0), ("box", 1))):
        for column, name in ((0, "damaged"), (2, "refined"), (3, "image")):
            y, x = top + row * (32 + gap), left + column * (32 + gap)
            expected = np.asarray(Image.open(picture_path(tmp_path / name, kind, (0.5, 0.6), index)))
            assert np.array_equal(grid[y : y + 32, x : x + 32], expected), (kind, name)


def test_json_holds_every_figure_and_setting(evaluation):
    document = json.loads(to_json(evaluation, "a model", "photographs", "cpu"))
    assert document["number_of_images"] == 3
    assert document["settings"]["buckets_percent"] == ["10-20", "50-60"]
    assert document["settings"]["seed"] == 0
    assert {"torch", "numpy", "pillow", "opencv", "hvq_inpaint"} <= set(document["versions"])
    assert document["figures"] == evaluation.figures
    assert document["codebooks"] == evaluation.codebooks
    rows = ["damaged", "telea", "navier_stokes", "harmonic", "coarse", "blended", "refined", "true_global", "oracle"]
    assert list(document["figures"]["box"]) == rows
    assert document["settings"]["metrics"] == list(PIXEL_METRICS)
    assert document["credibility"] == evaluation.credibility
    assert document["sha256_of_weights"] == evaluation.weights and evaluation.weights.keys() == {"model"}
    blind = {"box": {"refined": {"mean": math.nan}}}
    text = to_json(replace(evaluation, credibility=blind, figures=blind), "a model", "photographs", "cpu")
    for name in ("credibility", "figures"):
        assert json.loads(text)[name]["box"]["refined"]["mean"] is None


def test_markdown_says_what_is_left_out_and_quotes_the_paper(evaluation):
    text = to_markdown(replace(evaluation, left_out={"fid": "It is not there."}), "a model", "photographs", "cpu")
    assert "FID left out: It is not there." in text
    quoted = text.split("## The paper's figures")[1]
    assert "on other photographs" in quoted
    for figure in ("35.80", "0.737[a]", "68.48[b]", "55.90[b]", "0.828[c]", "0.0729", "111.81"):
        assert figure in quoted
    assert "Table 2 (Places2) repeats Table 1" in quoted


def test_tables_4_and_5_have_this_models_beside_them(evaluation):
    text = to_markdown(evaluation, "a model", "photographs", "cpu")
    rows = text.split("The same two of this model")[1].split("Table 6")[0]
    for kind, methods in evaluation.figures.items():
        for method, title in (("refined", "whole network"), ("coarse", "VQ-VAE alone")):
            ssim = [f"{methods[method][name]['ssim']:.4f}" for name in ("10-20", "50-60", "mean")]
            cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]
            assert [f"SSIM, {kind}", title, *ssim] in cells


@pytest.mark.parametrize("table", QUOTED_TABLES, ids=lambda table: table.number)
def test_quoted_tables_are_whole_and_their_marks_explained(table):
    assert len({len(row) for row in (table.head, *table.rows)}) == 1
    marks = {cell[-3:] for row in table.rows for cell in row if cell.endswith("]")}
    explained = {note[:3] for note in table.notes}
    assert marks == explained
    for row in table.rows:
        for cell in row[2:]:
            assert float(cell.partition("[")[0]) >= 0


def test_gains_are_over_the_better_classical_method_in_each_metric(evaluation):
    means = {
        "telea": {"psnr_hole": 20.0, "lpips": 0.3},
        "navier_stokes": {"psnr_hole": 19.0, "lpips": 0.2},
        "harmonic": {"psnr_hole": 20.5, "lpips": 0.3},
        "coarse": {"psnr_hole": 19.5, "lpips": 0.25},
        "refined": {"psnr_hole": 21.25, "lpips": 0.1},
    }
    figures = {"brush": {method: {"mean": mean} for method, mean in means.items()}}
    assert gains_table(figures).splitlines()[2:] == [
        "| brush | Laplace's equation |                       +0.50 |                   1.50 |",
        "| brush | coarse             |                       -0.50 |                   1.25 |",
        "| brush | refined            |                       +1.25 |                   0.50 |",
    ]
    del figures["brush"]["harmonic"]  # as in evaluations of earlier versions
    assert [line.split("|")[2].strip() for line in gains_table(figures).splitlines()[2:]] == ["coarse", "refined"]
    text = to_markdown(evaluation, "a model", "photographs", "cpu")
    assert gains_table(evaluation.figures) in text and "LPIPS, share" not in text
    without = replace(evaluation, options=replace(OPTIONS, opencv=False))
    assert "Against the better" not in to_markdown(without, "a model", "photographs", "cpu")


def test_markdown_has_a_table_for_each_mask_kind(evaluation):
    text = to_markdown(evaluation, "a model", "photographs", "cpu")
    assert "3 images of photographs" in text
    assert summary(evaluation) in text
    for kind in OPTIONS.mask_kinds:
        table = text.split(f"## Masks: {kind}\n\n")[1].split("\n\n")[0].splitlines()
        assert [cell.strip() for cell in table[0].strip("|").split("|")] == [
            "metric",
            "method",
            "10-20 %",
            "50-60 %",
            "mean",
        ]
        assert len(table) == 2 + len(PIXEL_METRICS) * len(evaluation.figures[kind])
        assert len({len(line) for line in table}) == 1
        cells = [cell.strip() for cell in table[2].strip("|").split("|")]
        figures = evaluation.figures[kind]["damaged"]
        assert cells == [
            "PSNR (dB)",
            "damaged input",
            *(f"{figures[name]['psnr']:.2f}" for name in ("10-20", "50-60", "mean")),
        ]

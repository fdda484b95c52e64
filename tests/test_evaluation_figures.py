"""Figures against hand-computed cases and the model's own pictures; the same every time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from conftest import OPTIONS, make_model
from PIL import Image

from hvq_inpaint.blending import poisson_composite
from hvq_inpaint.data import spread
from hvq_inpaint.evaluation.baselines import OPENCV_METHODS
from hvq_inpaint.evaluation.evaluate import (
    credibility_correlation,
    evaluate,
    measure,
    measure_records,
    summarise,
)
from hvq_inpaint.evaluation.methods import picture_path
from hvq_inpaint.evaluation.options import PIXEL_METRICS
from hvq_inpaint.evaluation.samples import evaluation_crop, evaluation_mask


def test_measure_of_a_hand_computed_case():
    """Two images, a quarter of the pixels off by 51 / 255 = 0.2 in the first.

    MSE 0.04 in the hole, 0.01 over the image.
    """
    target = torch.full((2, 3, 16, 16), 102 / 255)
    missing = torch.zeros(2, 1, 16, 16)
    missing[..., :8, :8] = 1
    output = target.clone()
    output[0] += 0.2 * missing[0]
    values = measure(output, target, missing)
    assert tuple(values) == PIXEL_METRICS
    assert values["psnr"] == pytest.approx([20, 100], abs=1e-4)
    assert values["psnr_hole"] == pytest.approx([-20 * math.log10(0.2), 100], abs=1e-4)
    assert values["l1"] == pytest.approx([0.05, 0], abs=1e-6)
    assert values["l1_hole"] == pytest.approx([0.2, 0], abs=1e-6)
    assert values["ssim"][0] < 0.99
    assert values["ssim"][1] == pytest.approx(1)


def test_figures_of_flat_images_are_known(model, tmp_path):
    """On grey 51 and grey 102 a black hole is off by 0.2 and 0.4; Navier-Stokes and Laplace's equation are exact."""
    for grey in (51, 102):
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(tmp_path / f"{grey}.png")
    result = evaluate(model, sorted(tmp_path.iterdir()), replace(OPTIONS, mask_kinds=("random_walk",)))
    for bucket in ("10-20", "50-60"):
        figures = result.figures["random_walk"]["damaged"][bucket]
        assert figures["psnr_hole"] == pytest.approx((-10 * math.log10(0.04) - 10 * math.log10(0.16)) / 2, abs=1e-4)
        assert figures["l1_hole"] == pytest.approx(0.3, abs=1e-6)
        for method in ("navier_stokes", "harmonic"):
            exact = result.figures["random_walk"][method][bucket]
            assert exact == pytest.approx({"psnr": 100, "psnr_hole": 100, "ssim": 1, "l1": 0, "l1_hole": 0})
    damaged = result.figures["random_walk"]["damaged"]
    for metric in PIXEL_METRICS:
        assert damaged["mean"][metric] == pytest.approx((damaged["10-20"][metric] + damaged["50-60"][metric]) / 2)


def test_chosen_rows_and_metrics_have_the_figures_of_all_and_nothing_else_is_measured(
    model, files, evaluation, monkeypatch
):
    few = replace(OPTIONS, methods=("coarse",), opencv=False, metrics=("l1", "psnr_hole"))
    monkeypatch.setattr(model.refiner, "forward", None)
    monkeypatch.setattr("hvq_inpaint.evaluation.evaluate.ssim", None)
    result = evaluate(model, files, few)
    assert result.credibility["box"].keys() == {"coarse"}
    for kind, methods in result.figures.items():
        assert methods.keys() == {"coarse"}
        for name, figures in methods["coarse"].items():
            assert figures == {metric: evaluation.figures[kind]["coarse"][name][metric] for metric in few.metrics}


def test_rows_of_the_model_equal_its_own_pictures(model, files):
    """One image, one mask: every row of the model again from `forward` and `reconstruct`, in NumPy on 8-bit pixels."""
    bucket = (0.2, 0.3)
    result = evaluate(model, files[:1], replace(OPTIONS, mask_kinds=("brush",), buckets=(bucket,)))
    pixels = evaluation_crop(files[0], 32)
    mask = evaluation_mask("brush", 32, bucket, 0, 0)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    known = torch.from_numpy(~mask)[None, None].float()
    with torch.no_grad():
        output = model(image * known, known)
        pictures = {
            "coarse": output.coarse,
            "blended": poisson_composite(output.coarse, image, known),
            "refined": output.refined,
            "true_global": model.vqvae.decode_with_mid(model.vqvae(image).global_quantized, output.mid)[2].clamp(0, 1),
            "oracle": model.reconstruct(image),
        }
    for method, picture in pictures.items():
        filled = (picture[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
        error = (np.where(mask[..., None], filled, pixels) - pixels) / 255
        figures = result.figures["brush"][method]["20-30"]
        assert figures["psnr"] == pytest.approx(-10 * math.log10((error**2).mean()), abs=1e-3)
        assert figures["psnr_hole"] == pytest.approx(-10 * math.log10((error[mask] ** 2).mean()), abs=1e-3)
        assert figures["l1_hole"] == pytest.approx(np.abs(error[mask]).mean(), abs=1e-5)
    assert result.hole_shares["brush"]["20-30"] == pytest.approx(mask.mean())


def test_a_model_that_pastes_has_no_blended_row(files):
    options = replace(OPTIONS, mask_kinds=("box",), buckets=((0.1, 0.2),))
    pasting = evaluate(make_model(poisson_composite=False), files[:1], options)
    rows = ["damaged", *OPENCV_METHODS, "harmonic", "coarse", "refined", "true_global", "oracle"]
    assert list(pasting.figures["box"]) == rows


def test_codebook_usage_is_that_of_the_intact_crops(model, files, evaluation):
    images = torch.stack(
        [torch.from_numpy(evaluation_crop(path, 32).copy()).permute(2, 0, 1).float() / 255 for path in files]
    )
    with torch.no_grad():
        clean = model.vqvae(images)
    for level, codes in (("global", clean.global_codes), ("local", clean.local_codes)):
        _, counts = np.unique(codes.numpy(), return_counts=True)
        shares = counts / counts.sum()
        assert evaluation.codebooks[level]["usage"] == pytest.approx(len(counts) / model.config.num_codes)
        assert evaluation.codebooks[level]["perplexity"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))


def test_same_options_same_figures(model, files, evaluation):
    again = evaluate(model, files, OPTIONS)
    assert again == evaluation


def test_another_seed_other_masks(model, files, evaluation):
    assert evaluate(model, files, replace(OPTIONS, seed=1)).hole_shares != evaluation.hole_shares


def test_figures_do_not_depend_on_what_else_is_measured(model, files, evaluation):
    alone = evaluate(model, files, replace(OPTIONS, mask_kinds=("box",), buckets=((0.5, 0.6),), opencv=False))
    assert set(evaluation.figures["box"]) - set(alone.figures["box"]) == set(OPENCV_METHODS)
    for method in alone.figures["box"]:
        assert alone.figures["box"][method]["50-60"] == evaluation.figures["box"][method]["50-60"]


def test_batch_size_changes_no_mask_and_next_to_no_figure(model, files, evaluation):
    single = evaluate(model, files, replace(OPTIONS, batch_size=1))
    assert single.hole_shares == evaluation.hole_shares
    for kind, methods in evaluation.figures.items():
        for method, by_bucket in methods.items():
            for bucket, figures in by_bucket.items():
                assert single.figures[kind][method][bucket] == pytest.approx(figures, abs=1e-2)


def test_limit_keeps_the_masks_of_the_images_that_remain(model, files, tmp_path):
    options = replace(OPTIONS, mask_kinds=("box",), buckets=((0.5, 0.6),), limit=2)
    assert evaluate(model, files, options).number_of_images == 2
    measure_records(model, files, options, {}, export=tmp_path)
    for index in (0, 1):  # spread over three: the first and the second
        mask = np.asarray(Image.open(picture_path(tmp_path / "mask", "box", (0.5, 0.6), index)))
        assert np.array_equal(mask, evaluation_mask("box", 32, (0.5, 0.6), 0, index))
    measure_records(model, [*files, *files], options, {}, export=tmp_path / "six")
    assert sorted(path.name for path in (tmp_path / "six").rglob("mask/**/*.png")) == ["00000.png", "00003.png"]
    mask = np.asarray(Image.open(picture_path(tmp_path / "six" / "mask", "box", (0.5, 0.6), 3)))
    assert np.array_equal(mask, evaluation_mask("box", 32, (0.5, 0.6), 0, 3))
    assert spread(10, 10) == spread(10, 99) == list(range(10))


def test_model_is_left_as_it_came(files):
    model = make_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, files[:1], replace(OPTIONS, opencv=False))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_credibility_correlation_equals_scipy_on_the_cells_of_the_hole():
    generator = torch.Generator().manual_seed(0)
    target, output = torch.rand(2, 3, 64, 64, generator=generator), torch.rand(2, 3, 64, 64, generator=generator)
    missing = (torch.rand(2, 1, 64, 64, generator=generator) < 0.02).float()
    credibility = torch.rand(2, 1, 8, 8, generator=generator).mul(5).round() / 5  # with ties
    expected = []
    for number in range(2):
        error, hole = (output[number] - target[number]).abs().mean(0).numpy(), missing[number, 0].numpy() > 0
        cells = [(row, column) for row in range(8) for column in range(8)]
        parts = {cell: (slice(8 * cell[0], 8 * cell[0] + 8), slice(8 * cell[1], 8 * cell[1] + 8)) for cell in cells}
        touched = [cell for cell in cells if hole[parts[cell]].any()]
        assert 10 < len(touched) < 60
        errors = [error[parts[cell]][hole[parts[cell]]].mean() for cell in touched]
        expected.append(scipy.stats.spearmanr([float(credibility[number, 0][cell]) for cell in touched], errors)[0])
    assert credibility_correlation(credibility, output, target, missing) == pytest.approx(expected, abs=1e-6)


def test_credibility_that_knows_the_error_has_correlation_minus_one_and_a_constant_one_none():
    target, missing = torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    error = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
    output = error.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(1, 3, 32, 32)
    assert credibility_correlation(1 - error, output, target, missing) == pytest.approx([-1])
    assert math.isnan(credibility_correlation(torch.ones_like(error), output, target, missing)[0])


def test_images_without_a_correlation_are_left_out_of_its_mean(model, files, evaluation):
    by_name = evaluation.credibility["box"]["refined"]
    assert by_name["mean"] == pytest.approx((by_name["10-20"] + by_name["50-60"]) / 2)
    records: dict[str, dict] = {}
    measure_records(model, files, OPTIONS, records)
    values = np.concatenate([records[f"00000{batch}-002"]["coarse/credibility"] for batch in (0, 1)])
    records["000000-002"]["coarse/credibility"][1] = math.nan
    credibility = summarise(model, records, 3, OPTIONS).credibility
    assert credibility["box"]["coarse"]["10-20"] == pytest.approx((values[0] + values[2]) / 2)

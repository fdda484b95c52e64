"""Evaluation: figures worked out by hand, masks within their buckets, the same figures every time."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import make_model, make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter
from hvq_inpaint.blending import poisson_composite
from hvq_inpaint.data import spread
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.baselines import OPENCV_METHODS, inpaint_opencv
from hvq_inpaint.evaluation.evaluate import (
    METRICS,
    Evaluation,
    EvaluationOptions,
    bucket_name,
    evaluate,
    evaluation_crop,
    evaluation_mask,
    measure,
)
from hvq_inpaint.evaluation.report import summary, to_json, to_markdown
from hvq_inpaint.masks import MASK_KINDS, RATIO_BUCKETS, random_walk_mask

OPTIONS = EvaluationOptions(mask_kinds=("random_walk", "box"), buckets=((0.1, 0.2), (0.5, 0.6)), size=32, batch_size=2)


@pytest.fixture(scope="module")
def model() -> HVQInpainter:
    return make_model()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three generated photographs, one of them wider than the crop."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, width in enumerate((32, 48, 32)):
        Image.fromarray(make_pixels(32, width, number)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def evaluation(model: HVQInpainter, files: list[Path]) -> Evaluation:
    return evaluate(model, files, OPTIONS)


# ---------------------------------------------------------------- figures


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
    assert tuple(values) == METRICS
    assert values["psnr"] == pytest.approx([20, 100], abs=1e-4)
    assert values["psnr_hole"] == pytest.approx([-20 * math.log10(0.2), 100], abs=1e-4)
    assert values["l1"] == pytest.approx([0.05, 0], abs=1e-6)
    assert values["l1_hole"] == pytest.approx([0.2, 0], abs=1e-6)
    assert values["ssim"][0] < 0.99
    assert values["ssim"][1] == pytest.approx(1)


def test_figures_of_flat_images_are_known(model, tmp_path):
    """On grey 51 and grey 102 a black hole is off by 0.2 and 0.4, and Navier-Stokes is exact."""
    for grey in (51, 102):
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(tmp_path / f"{grey}.png")
    result = evaluate(model, sorted(tmp_path.iterdir()), replace(OPTIONS, mask_kinds=("random_walk",)))
    for bucket in ("10-20", "50-60"):
        figures = result.figures["random_walk"]["damaged"][bucket]
        assert figures["psnr_hole"] == pytest.approx((-10 * math.log10(0.04) - 10 * math.log10(0.16)) / 2, abs=1e-4)
        assert figures["l1_hole"] == pytest.approx(0.3, abs=1e-6)
        exact = result.figures["random_walk"]["navier_stokes"][bucket]
        assert exact == pytest.approx({"psnr": 100, "psnr_hole": 100, "ssim": 1, "l1": 0, "l1_hole": 0})
    damaged = result.figures["random_walk"]["damaged"]
    for metric in METRICS:
        assert damaged["mean"][metric] == pytest.approx((damaged["10-20"][metric] + damaged["50-60"][metric]) / 2)


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
    assert list(pasting.figures["box"]) == ["damaged", *OPENCV_METHODS, "coarse", "refined", "oracle"]


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


# ---------------------------------------------------------------- the same every time


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


def test_limit_keeps_the_masks_of_the_images_that_remain(files):
    assert spread(10, 10) == spread(10, 99) == list(range(10))
    assert spread(10, 2) == [0, 5]


def test_model_is_left_as_it_came(files):
    model = make_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, files[:1], replace(OPTIONS, opencv=False))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("bucket", RATIO_BUCKETS, ids=bucket_name)
def test_masks_lie_within_their_bucket(kind, bucket):
    for index in range(30):
        share = evaluation_mask(kind, 32, bucket, 0, index).mean()
        assert bucket[0] <= share < bucket[1]


def test_masks_differ_between_images_seeds_and_buckets():
    keys = [((0.1, 0.2), 0, 0), ((0.1, 0.2), 0, 1), ((0.1, 0.2), 1, 0), ((0.2, 0.3), 0, 0)]
    assert len({evaluation_mask("random_walk", 32, *key).tobytes() for key in keys}) == 4


def test_a_bucket_that_no_mask_fits_is_refused(monkeypatch):
    monkeypatch.setattr("hvq_inpaint.evaluation.evaluate._MAX_TRIES", 20)
    with pytest.raises(InvalidInputError, match="wider bucket"):
        evaluation_mask("random_walk", 16, (0.5001, 0.5002), 0, 0)


# ---------------------------------------------------------------- the classical methods


@pytest.mark.parametrize("method", OPENCV_METHODS)
def test_opencv_sees_no_truth_and_keeps_known_pixels(method):
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    missing = random_walk_mask(24, 32, 0.3, 0)
    filled = inpaint_opencv(pixels, missing, method)
    other = np.where(missing[..., None], 255 - pixels, pixels)
    assert np.array_equal(filled, inpaint_opencv(other, missing, method))
    assert np.array_equal(filled[~missing], pixels[~missing])
    assert not np.array_equal(filled[missing], pixels[missing])


def test_opencv_methods_are_what_they_are_called():
    pixels = np.random.default_rng(2).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    missing = random_walk_mask(24, 32, 0.3, 1)
    for method, flag in (("telea", cv2.INPAINT_TELEA), ("navier_stokes", cv2.INPAINT_NS)):
        bgr = cv2.inpaint(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), missing.astype(np.uint8), 3, flag)
        assert np.array_equal(inpaint_opencv(pixels, missing, method), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def test_without_opencv_one_sentence_says_what_to_do(model, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InvalidInputError, match=r"pip install opencv-python-headless, or .* --no-opencv"):
        evaluate(model, files, OPTIONS)
    assert "telea" not in evaluate(model, files[:1], replace(OPTIONS, opencv=False)).figures["box"]


# ---------------------------------------------------------------- reports


def test_json_holds_every_figure_and_setting(evaluation):
    document = json.loads(to_json(evaluation, "a model", "photographs", "cpu"))
    assert document["number_of_images"] == 3
    assert document["settings"]["buckets_percent"] == ["10-20", "50-60"]
    assert document["settings"]["seed"] == 0
    assert {"torch", "numpy", "pillow", "opencv", "hvq_inpaint"} <= set(document["versions"])
    assert document["figures"] == evaluation.figures
    assert document["codebooks"] == evaluation.codebooks
    rows = ["damaged", "telea", "navier_stokes", "coarse", "blended", "refined", "oracle"]
    assert list(document["figures"]["box"]) == rows


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
        assert len(table) == 2 + len(METRICS) * len(evaluation.figures[kind])
        assert len({len(line) for line in table}) == 1
        cells = [cell.strip() for cell in table[2].strip("|").split("|")]
        figures = evaluation.figures[kind]["damaged"]
        assert cells == [
            "PSNR (dB)",
            "damaged input",
            *(f"{figures[name]['psnr']:.2f}" for name in ("10-20", "50-60", "mean")),
        ]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mask_kinds": ("stripes",)}, "no mask kind stripes"),
        ({"mask_kinds": ()}, "no mask kind given"),
        ({"mask_kinds": ("box", "box")}, "only once"),
        ({"buckets": ()}, "no bucket"),
        ({"buckets": ((0.3, 0.2),)}, "low < high"),
        ({"size": 20}, "multiple of 8"),
        ({"size": 8}, "at least 16"),
        ({"limit": 0}, "limit"),
        ({"batch_size": 0}, "batch size"),
    ],
)
def test_options_out_of_range_are_refused(values, words):
    with pytest.raises(InvalidInputError, match=words):
        EvaluationOptions(**values)


def test_images_are_upright_and_of_8_bits(tmp_path):
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(evaluation_crop(tmp_path / "turned.png", 16), np.rot90(np.asarray(image), -1))
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InvalidInputError, match="more than 8 bits"):
        evaluation_crop(tmp_path / "deep.png", 16)

"""The rows of other methods: OpenCV's, and pictures from a folder."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import OPTIONS
from PIL import Image

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.baselines import OPENCV_METHODS, inpaint_opencv
from hvq_inpaint.evaluation.evaluate import (
    EXPORTED,
    evaluate,
    measure_records,
)
from hvq_inpaint.evaluation.methods import picture_path
from hvq_inpaint.evaluation.report import to_markdown
from hvq_inpaint.evaluation.samples import evaluation_crop, evaluation_mask
from hvq_inpaint.masks import random_walk_mask


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


def test_exported_pictures_are_those_of_the_evaluation_and_score_the_same(model, files, tmp_path):
    records: dict[str, dict] = {}
    measure_records(model, files, OPTIONS, records, export=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(EXPORTED)
    for kind, bucket in OPTIONS.settings:
        for index, file in enumerate(files):
            read = {
                name: np.asarray(Image.open(picture_path(tmp_path / name, kind, bucket, index))) for name in EXPORTED
            }
            mask = evaluation_mask(kind, 32, bucket, 0, index)
            assert np.array_equal(read["image"], evaluation_crop(file, 32))
            assert np.array_equal(read["mask"], mask)
            assert np.array_equal(read["damaged"], read["image"] * ~mask[..., None])
            assert np.array_equal(read["refined"][~mask], read["image"][~mask])
    (tmp_path / "refined").rename(tmp_path / "other")
    scored = evaluate(model, files, replace(OPTIONS, outputs=(str(tmp_path / "other"),)))
    for methods in scored.figures.values():
        assert list(methods)[:5] == ["damaged", "telea", "navier_stokes", "harmonic", "other"]
        assert methods["other"] == methods["refined"]
    assert "| other " in to_markdown(scored, "a model", "photographs", "cpu")


def test_only_the_hole_of_another_method_counts(model, files, tmp_path):
    options = replace(OPTIONS, mask_kinds=("box",), buckets=((0.1, 0.2),), outputs=(str(tmp_path / "white"),))
    for index in range(3):
        path = picture_path(tmp_path / "white", "box", (0.1, 0.2), index)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), "white").save(path)
    figures = evaluate(model, files, options).figures["box"]["white"]["10-20"]
    errors = []
    for index, file in enumerate(files):
        mask = evaluation_mask("box", 32, (0.1, 0.2), 0, index)
        errors.append(((255 - evaluation_crop(file, 32).astype(float)) * mask[..., None]).mean() / 255)
    assert figures["l1"] == pytest.approx(np.mean(errors), abs=1e-6)


def test_pictures_of_another_method_must_be_there_and_fit(model, files, tmp_path):
    options = replace(OPTIONS, mask_kinds=("box",), buckets=((0.1, 0.2),), outputs=(str(tmp_path / "other"),))
    with pytest.raises(InvalidInputError, match=r"There is no picture .*other/box/10-20/00000.png"):
        evaluate(model, files, options)
    path = picture_path(tmp_path / "other", "box", (0.1, 0.2), 0)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (16, 32)).save(path)
    with pytest.raises(InvalidInputError, match="16 x 32 pixels; it must be 32 x 32"):
        evaluate(model, files[:1], options)
    for outputs in (("a/refined",), ("a/lama", "b/lama")):
        with pytest.raises(InvalidInputError, match="exists already"):
            evaluate(model, files, replace(OPTIONS, outputs=outputs))

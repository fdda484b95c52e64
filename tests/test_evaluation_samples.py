"""Photographs and masks of an evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import OPTIONS
from PIL import Image

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.evaluate import (
    evaluate,
)
from hvq_inpaint.evaluation.options import EvaluationOptions, bucket_name
from hvq_inpaint.evaluation.samples import DatasetFiles, Masks, evaluation_crop, evaluation_mask
from hvq_inpaint.masks import MASK_KINDS, RATIO_BUCKETS, random_walk_mask


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
    monkeypatch.setattr("hvq_inpaint.evaluation.samples._MAX_TRIES", 20)
    with pytest.raises(InvalidInputError, match="wider bucket"):
        evaluation_mask("random_walk", 16, (0.5001, 0.5002), 0, 0)


def test_parquet_gives_the_same_as_the_folder(model, files, evaluation, tmp_path):
    import datasets

    rows = [{"bytes": path.read_bytes(), "path": None} for path in files]
    datasets.Dataset.from_dict({"image": rows}).to_parquet(str(tmp_path / "set.parquet"))
    assert evaluate(model, DatasetFiles(str(tmp_path / "set.parquet"), "test"), OPTIONS) == evaluation
    assert evaluate(model, DatasetFiles(str(files[0].parent), "test"), OPTIONS) == evaluation


def test_a_damaged_image_in_parquet_is_named_by_its_number(model, files, tmp_path):
    import datasets

    rows = [{"bytes": files[0].read_bytes()[:size], "path": None} for size in (None, 500)]
    datasets.Dataset.from_dict({"image": rows}).to_parquet(str(tmp_path / "set.parquet"))
    with pytest.raises(InvalidInputError, match=r"Image 1 of .*set.parquet can't be decoded"):
        evaluate(model, DatasetFiles(str(tmp_path / "set.parquet"), "test"), OPTIONS)


def test_mask_files_go_to_the_bucket_of_their_share(tmp_path):
    rows = {"a": 10, "b": 36, "c": 12, "empty": 0, "full": 64}
    for name, number in rows.items():
        pixels = np.zeros((64, 64), np.uint8)
        pixels[:number] = 255
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    options = replace(OPTIONS, mask_kinds=("files", "box"), mask_folder=str(tmp_path))
    masks = Masks(options)
    assert {path.stem for path in masks.files[0.1, 0.2]} == {"a", "c"}
    assert {path.stem for path in masks.files[0.5, 0.6]} == {"b"}
    drawn = [masks.mask("files", (0.1, 0.2), index) for index in range(20)]
    assert {float(mask.mean()) for mask in drawn} == {10 / 64, 12 / 64}  # both, and at 32 x 32 as at 64 x 64
    assert all(mask.shape == (32, 32) and mask.dtype == bool and mask[0].all() for mask in drawn)
    assert np.array_equal(drawn[3], Masks(options).mask("files", (0.1, 0.2), 3))
    assert np.array_equal(masks.mask("box", (0.1, 0.2), 3), evaluation_mask("box", 32, (0.1, 0.2), 0, 3))
    with pytest.raises(InvalidInputError, match=r"no mask with 20-30 % of its pixels missing"):
        Masks(replace(options, buckets=((0.1, 0.2), (0.2, 0.3))))


def test_whole_percentages_of_the_paper_s_masks_go_to_the_bucket_they_begin(tmp_path):
    for percent in (10, 20, 30, 40, 50, 60):
        Image.fromarray(random_walk_mask(256, 256, percent / 100, 0)).save(tmp_path / f"{percent}.png")
    masks = Masks(EvaluationOptions(mask_kinds=("files",), mask_folder=str(tmp_path)))
    found = {bucket_name(bucket): sorted(path.stem for path in paths) for bucket, paths in masks.files.items()}
    assert found == {"10-20": ["10"], "20-30": ["20"], "30-40": ["30"], "40-50": ["40"], "50-60": ["50", "60"]}


def test_figures_on_mask_files_equal_those_on_the_masks_drawn(model, files, evaluation, tmp_path):
    bucket = (0.5, 0.6)
    options = replace(OPTIONS, mask_kinds=("files",), buckets=(bucket,), mask_folder=str(tmp_path))
    Image.fromarray(evaluation_mask("box", 32, bucket, 0, 0)).save(tmp_path / "mask.png")
    drawn = evaluate(model, files[:1], replace(OPTIONS, mask_kinds=("box",), buckets=(bucket,)))
    assert evaluate(model, files[:1], options).figures["files"] == drawn.figures["box"]


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
        ({"mask_kinds": ("files",)}, "needs a folder of masks"),
        ({"metrics": ("beauty",)}, "no metric beauty"),
        ({"metrics": ()}, "no metric given"),
        ({"metrics": ("ssim", "ssim")}, "only once"),
        ({"metrics": ("lpips",), "size": 24}, "at least 32"),
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

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
import scipy.stats
import torch
from conftest import make_model, make_pixels, random_alexnet
from PIL import Image

from hvq_inpaint import HVQInpainter
from hvq_inpaint.blending import poisson_composite
from hvq_inpaint.data import spread
from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.baselines import OPENCV_METHODS, inpaint_opencv
from hvq_inpaint.evaluation.evaluate import (
    EXPORTED,
    Evaluation,
    credibility_correlation,
    evaluate,
    measure,
    measure_records,
    settings_of,
    summarise,
)
from hvq_inpaint.evaluation.grid import picture_grid
from hvq_inpaint.evaluation.methods import picture_path
from hvq_inpaint.evaluation.networks import MetricNetworks, load_networks
from hvq_inpaint.evaluation.options import PIXEL_METRICS, EvaluationOptions, bucket_name
from hvq_inpaint.evaluation.paper import QUOTED_TABLES
from hvq_inpaint.evaluation.records import RecordFolder, discard_records
from hvq_inpaint.evaluation.report import summary, to_json, to_markdown
from hvq_inpaint.evaluation.samples import DatasetFiles, Masks, evaluation_crop, evaluation_mask
from hvq_inpaint.masks import MASK_KINDS, RATIO_BUCKETS, random_walk_mask
from hvq_inpaint.metrics import LPIPS, FrechetDistance, InceptionFeatures

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
    assert tuple(values) == PIXEL_METRICS
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
            "true_global": model._decode(
                image,
                known,
                output.mid,
                output.global_latents,
                model.vqvae(image).global_quantized,
                output.global_codes,
            ).coarse,
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
    assert list(pasting.figures["box"]) == ["damaged", *OPENCV_METHODS, "coarse", "refined", "true_global", "oracle"]


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
    monkeypatch.setattr("hvq_inpaint.evaluation.samples._MAX_TRIES", 20)
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


# ---------------------------------------------------------------- feature networks


@pytest.fixture(scope="module")
def networks() -> MetricNetworks:
    """LPIPS on an AlexNet drawn at random: the arithmetic is what it is with the trained one."""
    return MetricNetworks(lpips=LPIPS(random_alexnet()))


def test_lpips_and_frechet_distance_of_a_row_equal_their_metric(model, files, networks):
    options = replace(OPTIONS, mask_kinds=("brush",), buckets=((0.2, 0.3),), metrics=("lpips", "fd"))
    result = evaluate(model, files, options, networks)
    crops = [evaluation_crop(path, 32) for path in files]
    masks = [evaluation_mask("brush", 32, (0.2, 0.3), 0, index) for index in range(3)]
    truth = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    filled = [inpaint_opencv(crop, mask, "telea") for crop, mask in zip(crops, masks, strict=True)]
    output = torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).float() / 255
    figures = result.figures["brush"]["telea"]["20-30"]
    assert set(figures) == {"lpips", "fd"}
    assert figures["lpips"] == pytest.approx(float(networks.lpips(output, truth).mean()), rel=1e-4)
    true, filled = (networks.lpips.features(image).numpy() for image in (truth, output))
    assert figures["fd"] == pytest.approx(FrechetDistance(true)(filled), rel=1e-4)


def test_fid_is_made_of_inceptions_features_of_8_bit_pixels(model, files, monkeypatch):
    class Stub(torch.nn.Module):
        """In Inception's place: takes bytes, gives 2048 features."""

        def forward(self, image):
            assert image.dtype == torch.uint8
            return torch.nn.functional.adaptive_avg_pool2d(image.float(), 4).flatten(1).repeat(1, 43)[:, :2048]

    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")  # torch-fidelity need not be installed
    inception = InceptionFeatures.__new__(InceptionFeatures)
    torch.nn.Module.__init__(inception)
    inception.network = Stub()
    options = replace(OPTIONS, mask_kinds=("box",), buckets=((0.5, 0.6),), metrics=("fid",))
    figures = evaluate(model, files, options, MetricNetworks(inception=inception)).figures["box"]
    truth = np.stack([evaluation_crop(path, 32) for path in files])
    masks = np.stack([evaluation_mask("box", 32, (0.5, 0.6), 0, index) for index in range(3)])
    features = [
        Stub()(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy() for pixels in (truth, truth * ~masks[..., None])
    ]
    assert figures["damaged"]["50-60"]["fid"] == pytest.approx(FrechetDistance(features[0])(features[1]), rel=1e-4)


def test_a_frechet_distance_of_one_image_is_refused(model, files, networks):
    with pytest.raises(InvalidInputError, match="at least 2 images"):
        evaluate(model, files[:1], replace(OPTIONS, metrics=("fd",)), networks)


def test_what_can_not_be_had_is_left_out_or_refused_by_name(monkeypatch):
    def fails(self, *_):
        raise InvalidInputError("It can't be downloaded.")

    monkeypatch.setattr("hvq_inpaint.evaluation.networks.LPIPS.__init__", fails)
    monkeypatch.setattr("hvq_inpaint.evaluation.networks.InceptionFeatures.__init__", fails)
    networks = load_networks(None, None)
    assert networks.metrics == PIXEL_METRICS
    assert networks.left_out == dict.fromkeys(("lpips", "fd", "fid"), "It can't be downloaded.")
    assert load_networks(PIXEL_METRICS, None).left_out == {}
    for metric in ("lpips", "fd", "fid"):
        with pytest.raises(InvalidInputError, match="downloaded"):
            load_networks((metric,), None)


def test_a_metric_without_its_network_is_refused(model, files):
    with pytest.raises(InvalidInputError, match="no feature network for lpips"):
        evaluate(model, files, replace(OPTIONS, metrics=("psnr", "lpips")))


# ---------------------------------------------------------------- credibility


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


# ---------------------------------------------------------------- broken off, shared out


NAMED = {"dataset": "photographs", "split": "test", "device": "cpu", "export": None}


class Stops(list):
    """Image files of which the third can't be reached."""

    def __getitem__(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_broken_off_evaluation_goes_on_where_it_stood(model, files, evaluation, tmp_path):
    def folder() -> RecordFolder:
        return RecordFolder(tmp_path / "records", settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))

    with pytest.raises(KeyboardInterrupt):
        measure_records(model, Stops(files), OPTIONS, folder())
    assert list(folder()) == [*(f"000000-00{setting}" for setting in range(4)), "000000-images"]
    (tmp_path / "records" / "000001-000.partial").write_bytes(b"half a record")

    read: list[int] = []

    class Counted(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    measure_records(model, Counted(files), OPTIONS, folder())
    assert read == [2]
    assert summarise(model, folder(), len(files), OPTIONS) == evaluation
    discard_records(tmp_path / "records")
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("changed", ["seed", "model", "config", "network", "dataset", "split", "device", "export"])
def test_records_of_other_settings_are_not_continued(model, files, tmp_path, changed):
    RecordFolder(tmp_path, settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))["x"] = {"x": np.zeros(1)}
    assert list(RecordFolder(tmp_path, settings_of(model, files, OPTIONS, MetricNetworks(), **NAMED))) == ["x"]
    models = {"model": make_model(seed=1), "config": make_model(poisson_composite=False)}
    now = settings_of(
        models.get(changed, model),
        files,
        replace(OPTIONS, seed=1) if changed == "seed" else OPTIONS,
        MetricNetworks(LPIPS(random_alexnet())) if changed == "network" else MetricNetworks(),
        **{**NAMED, **({changed: "another"} if changed in NAMED else {})},
    )
    with pytest.raises(InvalidInputError, match="other settings"):
        RecordFolder(tmp_path, now)


def test_nothing_but_records_is_ever_deleted(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"holds something else \(mine.txt\)"):
        RecordFolder(tmp_path / "records", {})
    with pytest.raises(InvalidInputError, match="something else"):
        discard_records(tmp_path / "records")
    assert (tmp_path / "records" / "mine.txt").read_text() == "mine"
    discard_records(tmp_path / "nowhere")


def test_shares_of_several_processes_make_the_same_figures(model, files, evaluation, networks):
    options = replace(OPTIONS, batch_size=1, metrics=("psnr_hole", "lpips", "fd"))
    together: dict[str, dict] = {}
    measure_records(model, files, options, together, networks, process=1, processes=2)
    assert {name[:6] for name in together} == {"000001"}
    measure_records(model, files, options, together, networks, process=0, processes=2)
    assert summarise(model, together, len(files), options, networks) == evaluate(model, files, options, networks)


def test_a_result_that_is_not_finite_is_refused_and_not_left_out_of_the_mean(files):
    broken = make_model()
    with torch.no_grad():
        broken.refiner.output.bias.fill_(math.nan)
    with pytest.raises(InvalidInputError, match=r"The refined result of one of the images \[0, 1\] is not finite"):
        evaluate(broken, files, OPTIONS)


# ---------------------------------------------------------------- other methods


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
        assert list(methods)[:4] == ["damaged", "telea", "navier_stokes", "other"]
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


# ---------------------------------------------------------------- datasets and mask files


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


# ---------------------------------------------------------------- the grid


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


# ---------------------------------------------------------------- reports


def test_json_holds_every_figure_and_setting(evaluation):
    document = json.loads(to_json(evaluation, "a model", "photographs", "cpu"))
    assert document["number_of_images"] == 3
    assert document["settings"]["buckets_percent"] == ["10-20", "50-60"]
    assert document["settings"]["seed"] == 0
    assert {"torch", "numpy", "pillow", "opencv", "hvq_inpaint"} <= set(document["versions"])
    assert document["figures"] == evaluation.figures
    assert document["codebooks"] == evaluation.codebooks
    rows = ["damaged", "telea", "navier_stokes", "coarse", "blended", "refined", "true_global", "oracle"]
    assert list(document["figures"]["box"]) == rows
    assert document["settings"]["metrics"] == list(PIXEL_METRICS)
    assert document["credibility"] == evaluation.credibility
    blind = replace(evaluation, credibility={"box": {"refined": {"mean": math.nan}}})
    assert json.loads(to_json(blind, "a model", "photographs", "cpu"))["credibility"]["box"]["refined"]["mean"] is None


def test_markdown_says_what_is_left_out_and_quotes_the_paper(evaluation):
    text = to_markdown(replace(evaluation, left_out={"fid": "It is not there."}), "a model", "photographs", "cpu")
    assert "FID left out: It is not there." in text
    quoted = text.split("## The paper's figures")[1]
    assert "on other photographs" in quoted
    for figure in ("35.80", "0.737[a]", "68.48[b]", "55.90[b]", "0.828[c]", "0.0729", "111.81"):
        assert figure in quoted
    assert "Table 2 (Places2) repeats Table 1" in quoted


@pytest.mark.parametrize("table", QUOTED_TABLES, ids=lambda table: table.number)
def test_quoted_tables_are_whole_and_their_marks_explained(table):
    assert len({len(row) for row in (table.head, *table.rows)}) == 1
    marks = {cell[-3:] for row in table.rows for cell in row if cell.endswith("]")}
    explained = {note[:3] for note in table.notes}
    assert marks == explained
    for row in table.rows:
        for cell in row[2:]:
            assert float(cell.partition("[")[0]) >= 0


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

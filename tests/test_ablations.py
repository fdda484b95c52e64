"""Ablations: all variants start alike, differ in what they are called after, and are measured alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make_model

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.__main__ import _ABLATIONS
from hvq_inpaint.blending import harmonic_extension
from hvq_inpaint.evaluation import ablations
from hvq_inpaint.evaluation.ablations import (
    ABLATIONS,
    Budget,
    HarmonicInpainter,
    MeanColourInpainter,
    Variant,
    ablation_report,
    run_ablation,
    variant_model,
)
from hvq_inpaint.evaluation.options import PIXEL_METRICS
from hvq_inpaint.losses import LOSS_PRESETS

NARROW = {"refiner_channels": (8, 8, 16), "refiner_residual": True}


@pytest.fixture(scope="module")
def base() -> HVQInpainter:
    return make_model()


@pytest.fixture
def budget(image_folder: Path) -> Budget:
    return Budget(
        dataset=str(image_folder),
        validation=str(image_folder),
        steps=2,
        batch_size=2,
        crop_size=32,
        mask_size=32,
        mixed_precision="no",
        refiner_channels=(8, 8, 16),
        workers=0,
        limit=2,
        evaluation_size=32,
    )


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_variants_share_all_that_comes_before_the_stage_and_its_start(base, name):
    ablation = ABLATIONS[name]
    models = [variant_model(base, ablation, variant, NARROW, seed=3) for variant in ablation.variants.values()]
    trained = {"autoencoder": "vqvae", "encoder": "encoder_b1", "refiner": "refiner"}[ablation.stage]
    for part in {"vqvae", "encoder_b1", "credibility_map", "refiner"} - (set() if ablation.fine_tuned else {trained}):
        for model in models:
            expected = getattr(base, part).state_dict()
            assert all(torch.equal(tensor, expected[key]) for key, tensor in getattr(model, part).state_dict().items())
    again = variant_model(base, ablation, next(iter(ablation.variants.values())), NARROW, seed=3)
    first = getattr(models[0], trained).state_dict()
    assert all(torch.equal(tensor, first[key]) for key, tensor in getattr(again, trained).state_dict().items())


def test_variants_without_another_network_start_from_the_same_weights(base):
    for name in ("input", "loss", "credibility"):
        ablation = ABLATIONS[name]
        states = [
            variant_model(base, ablation, variant, NARROW, seed=0).state_dict()
            for variant in ablation.variants.values()
        ]
        for state in states[1:]:
            assert all(torch.equal(tensor, states[0][key]) for key, tensor in state.items())


def test_single_dilation_rates_have_the_same_width(base):
    sizes = {
        sum(
            parameter.numel()
            for parameter in variant_model(base, ABLATIONS["dilation"], variant, NARROW, 0).parameters()
        )
        for variant in ABLATIONS["dilation"].variants.values()
    }
    assert len(sizes) == 1


def test_loss_variants_are_presets():
    for variant in ABLATIONS["loss"].variants.values():
        assert variant.options["loss"] in LOSS_PRESETS


def test_what_the_refiner_gets_without_a_vq_stage():
    torch.manual_seed(0)
    damaged, coarse = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 16, 24)
    known = (torch.rand(2, 1, 16, 24) > 0.4).float()
    damaged = damaged * known
    config = make_model().config
    mean = MeanColourInpainter(config).coarse_composite(coarse, damaged, known)
    for number in range(2):
        is_known = known[number, 0].numpy() > 0
        pixels = damaged[number].permute(1, 2, 0).numpy()
        expected = np.where(is_known[..., None], pixels, pixels[is_known].mean(axis=0))
        assert np.allclose(mean[number].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    nothing = MeanColourInpainter(config).coarse_composite(coarse, torch.zeros_like(damaged), torch.zeros_like(known))
    assert torch.equal(nothing, torch.zeros_like(damaged))
    harmonic = HarmonicInpainter(config).coarse_composite(coarse, damaged, known)
    assert torch.equal(harmonic, harmonic_extension(damaged, known))
    assert torch.equal(harmonic[known.expand_as(harmonic) > 0], damaged[known.expand_as(damaged) > 0])


def test_an_ablation_trains_and_measures_every_variant_once(base, budget, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(ablations, "evaluate", lambda *a, real=ablations.evaluate: trained.append(a[0]) or real(*a))
    report = run_ablation("input", base, "tiny", budget, tmp_path / "out", metrics=PIXEL_METRICS)
    assert [type(model) for model in trained] == [MeanColourInpainter, HarmonicInpainter, HVQInpainter, HVQInpainter]
    assert [model.config.poisson_composite for model in trained] == [True, True, False, True]
    assert all(model.config.refiner_channels == (8, 8, 16) and model.config.refiner_residual for model in trained)
    text = report.read_text()
    for key, variant in ABLATIONS["input"].variants.items():
        figures = json.loads((tmp_path / "out" / key / "evaluation.json").read_text())["figures"]
        for kind in ("random_walk", "brush", "box"):
            row = next(line for line in text.splitlines() if variant.title in line and kind.replace("_", " ") in line)
            assert f"{figures[kind]['refined']['mean']['psnr_hole']:.2f}" in row
    assert "2 steps of 2 crops of 32 pixels" in text and "by bucket" in text

    assert len(list(tmp_path.glob("inputs-*"))) == 1
    run_ablation("skips", base, "tiny", budget, tmp_path / "skips", metrics=("psnr_hole",))
    assert len(list(tmp_path.glob("inputs-*"))) == 1  # the same, for another ablation
    run_ablation("skips", base, "tiny", replace(budget, seed=1), tmp_path / "other", metrics=("psnr_hole",))
    assert len(list(tmp_path.glob("inputs-*"))) == 2

    trained.clear()
    logged = (tmp_path / "out" / "pasted" / "refiner" / "metrics.jsonl").read_bytes()
    (tmp_path / "out" / "pasted" / "evaluation.json").unlink()
    assert run_ablation("input", base, "tiny", budget, tmp_path / "out", metrics=PIXEL_METRICS).read_text() == text
    assert len(trained) == 1  # measured again,
    assert (tmp_path / "out" / "pasted" / "refiner" / "metrics.jsonl").read_bytes() == logged  # not trained again
    for other, model, metrics in (
        (replace(budget, steps=3), base, PIXEL_METRICS),
        (budget, base, ("psnr_hole",)),
        (budget, make_model(1), PIXEL_METRICS),
    ):
        with pytest.raises(InvalidInputError, match=r"with other settings \((steps|metrics|model)\): choose another"):
            run_ablation("input", model, "tiny", other, tmp_path / "out", metrics=metrics)
    variants = {**ABLATIONS["input"].variants, "pasted": Variant("pasted", model=MeanColourInpainter)}
    monkeypatch.setitem(ABLATIONS, "input", replace(ABLATIONS["input"], variants=variants))  # as another version may
    with pytest.raises(InvalidInputError, match=r"with other settings \(variants\)"):
        run_ablation("input", base, "tiny", budget, tmp_path / "out", metrics=PIXEL_METRICS)


def test_the_encoder_is_varied_by_its_options(base, budget, tmp_path, monkeypatch):
    run_ablation("credibility", base, "tiny", budget, tmp_path, metrics=("psnr_hole",))
    weights = {}
    for key in ABLATIONS["credibility"].variants:
        options = yaml.safe_load((tmp_path / key / "encoder" / "config.yaml").read_text())
        weights[key] = (options["low_credibility_weight"], options["credibility_quantile"])
    assert weights == {"off": (0, 1), "maximum": (8, 1), "0.99": (8, 0.99), "0.9": (8, 0.9)}
    text = (tmp_path / "ablation.md").read_text()
    assert "Figures of the coarse result" in text and "channels" not in text
    document = json.loads((tmp_path / "0.9" / "evaluation.json").read_text())
    assert f"{document['credibility']['brush']['coarse']['mean']:.2f}" in text.split("Rank correlation")[1]


def test_options_and_configurations_are_those_of_the_variant(base, budget, tmp_path):
    for name in ("masks", "rate", "codebook", "warmup"):
        run_ablation(name, base, "tiny", replace(budget, steps=5), tmp_path / name, metrics=("psnr_hole",))
    read = {path.parent.parent.name: yaml.safe_load(path.read_text()) for path in tmp_path.glob("*/*/*/config.yaml")}
    assert read["random-walk"]["mask_kinds"] == ["random_walk"]
    assert read["mixture"]["mask_kinds"] == ["random_walk", "brush", "box"]
    assert [read[key]["learning_rate"] for key in ("1e-4", "4e-4", "1.6e-3")] == [1e-4, 4e-4, 1.6e-3]
    assert [read[key]["quantization_warmup"] for key in ("none", "fifth")] == [0, 1]
    said = {name: (tmp_path / name / "ablation.md").read_text() for name in ("masks", "rate", "codebook")}
    assert "learning rate 0.0004" in said["masks"] and "learning rate 0.0004" not in said["rate"]  # it is varied
    assert "same photographs and crops;" in said["masks"] and "photographs, crops and masks;" in said["rate"]
    config = json.loads((tmp_path / "codebook" / "128" / "autoencoder" / "model" / "config.json").read_text())
    assert config["num_codes"] == 128


def test_what_can_not_be_ablated_is_refused(base, budget, networks, tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="no ablation 'depth'; choose one of dilation"):
        run_ablation("depth", base, "tiny", budget, tmp_path / "out")
    for changed in ({"dataset": "./nowhere"}, {"validation": "./nowhere"}, {"steps": 0}, {"crop_size": 12}):
        with pytest.raises(InvalidInputError):
            run_ablation("input", base, "tiny", replace(budget, **changed), tmp_path / "out", metrics=("psnr",))
    with monkeypatch.context() as patch, pytest.raises(InvalidInputError, match="at least 2 images"):
        patch.setattr(ablations, "load_networks", lambda *_: networks)
        run_ablation("input", base, "tiny", replace(budget, limit=1), tmp_path / "out", metrics=("fd",))
    with pytest.raises(InvalidInputError, match="at least 40 for --loss lpips"):  # before any other is trained
        run_ablation("loss", base, "tiny", budget, tmp_path / "out", metrics=("psnr",))
    assert not (tmp_path / "out").exists()


def test_the_command_names_every_ablation():
    assert set(_ABLATIONS) == set(ABLATIONS)


def report_of(name: str, mask_kind: str, method: str) -> str:
    document = {
        "number_of_images": 1,
        "settings": {"metrics": ["psnr"], "buckets_percent": ["30-40"]},
        "figures": {mask_kind: {method: {"30-40": {"psnr": 20.0}, "mean": {"psnr": 20.0}}}},
        "left_out": {"fid": "It is not there."},
        "credibility": {mask_kind: {method: {"mean": None}}},
    }
    return ablation_report(name, "a model", Budget("a", "b"), dict.fromkeys(ABLATIONS[name].variants, document))


def test_the_report_quotes_the_paper():
    text = report_of("dilation", "random_walk", "refined")
    assert "Table 6" in text and "111.81" in text
    assert "bucket 30-40 %." in text and "FID left out: It is not there." in text


def test_the_report_does_not_call_the_same_what_is_varied(monkeypatch):
    ablation = replace(ABLATIONS["crop"], mask_kinds=("brush",))
    monkeypatch.setitem(ABLATIONS, "crop", ablation)
    text = report_of("crop", "brush", "coarse")
    assert "2000 steps, learning rate 0.0004, seed 0, the same photographs; all else" in text

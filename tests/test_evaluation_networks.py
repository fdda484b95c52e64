"""Metrics that need feature networks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import OPTIONS

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.evaluation.baselines import inpaint_opencv
from hvq_inpaint.evaluation.evaluate import (
    evaluate,
)
from hvq_inpaint.evaluation.networks import MetricNetworks, load_networks
from hvq_inpaint.evaluation.options import PIXEL_METRICS
from hvq_inpaint.evaluation.samples import evaluation_crop, evaluation_mask
from hvq_inpaint.metrics import FrechetDistance, InceptionFeatures


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
        """In Inception's place: takes bytes, gives 48 features."""

        def forward(self, image):
            assert image.dtype == torch.uint8
            return torch.nn.functional.adaptive_avg_pool2d(image.float(), 4).flatten(1)

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


def test_on_one_image_all_but_the_frechet_distances_can_be_measured(networks):
    assert networks.metrics_on(2) == (*PIXEL_METRICS, "lpips", "fd")
    few = replace(networks, left_out={})
    assert few.metrics_on(1) == (*PIXEL_METRICS, "lpips")
    assert few.left_out.keys() == {"fid", "fd"}


def test_a_frechet_distance_that_is_no_number_is_not_zero():
    distance = FrechetDistance(np.random.default_rng(0).normal(size=(4, 2)))
    assert math.isnan(distance(np.full((4, 2), math.nan)))
    assert math.isfinite(distance(np.zeros((4, 2))))
    assert math.isnan(FrechetDistance(np.full((4, 2), math.inf))(np.zeros((4, 2))))


def test_what_can_not_be_had_is_left_out_or_refused_by_name(monkeypatch):
    def fails(self, *_):
        raise InvalidInputError("It can't be downloaded.")

    monkeypatch.setattr("hvq_inpaint.evaluation.networks.LPIPS.__init__", fails)
    monkeypatch.setattr("hvq_inpaint.evaluation.networks.InceptionFeatures.__init__", fails)
    networks = load_networks(None, None)
    assert networks.metrics == PIXEL_METRICS
    assert networks.left_out == dict.fromkeys(("lpips", "fd", "fid"), "It can't be downloaded.")
    assert networks.metrics_on(2) == PIXEL_METRICS
    assert load_networks(PIXEL_METRICS, None).left_out == {}
    for metric in ("lpips", "fd", "fid"):
        with pytest.raises(InvalidInputError, match="downloaded"):
            load_networks((metric,), None)


def test_a_metric_without_its_network_is_refused(model, files):
    with pytest.raises(InvalidInputError, match="no feature network for lpips"):
        evaluate(model, files, replace(OPTIONS, metrics=("psnr", "lpips")))

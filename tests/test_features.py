"""VGG-19 against torchvision's own network with the same random weights."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vgg import cfgs, make_layers

from hvq_inpaint import InvalidInputError
from hvq_inpaint.features import VGG19Features, load_vgg19


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(features=make_layers(cfgs["E"]))).eval()  # VGG-19 without its classifier


def tapped(reference, normalised):
    layers = {f"features.{index}": f"relu{level}_1" for level, index in enumerate((1, 6, 11, 20, 29), start=1)}
    return list(create_feature_extractor(reference, layers)(normalised).values())


def convolutions(reference):
    return {key: value for key, value in reference.state_dict().items() if key.startswith("features.")}


def test_five_maps_equal_torchvision_s(reference):
    image = torch.rand(1, 3, 32, 48)
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1),
    )
    maps = VGG19Features(convolutions(reference), "torchvision")(image)
    assert [tuple(map_.shape[1:]) for map_ in maps] == [
        (64, 32, 48),
        (128, 16, 24),
        (256, 8, 12),
        (512, 4, 6),
        (512, 2, 3),
    ]
    for map_, expected in zip(maps, tapped(reference, (image - mean) / std), strict=True):
        assert torch.allclose(map_, expected, atol=1e-5)


def test_the_oxford_convention_subtracts_the_mean_of_0_to_255(reference, tmp_path):
    save_file(convolutions(reference), tmp_path / "vgg19.safetensors")
    image = torch.rand(1, 3, 32, 32)
    maps = load_vgg19(str(tmp_path / "vgg19.safetensors"))(image)
    expected = tapped(reference, 255 * image - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1))
    assert all(torch.allclose(map_, other, rtol=1e-4, atol=1e-3) for map_, other in zip(maps, expected, strict=True))


def test_calibrated_maps_are_those_of_before_over_their_means(reference):
    features = VGG19Features(convolutions(reference), "torchvision")
    images, other = torch.rand(10, 3, 32, 32), torch.rand(1, 3, 32, 32) * 0.2
    means, expected = [map_.mean() for map_ in features(images)], features(other)
    for _ in range(2):  # the second time nothing is left to do
        features.calibrate(images)
        assert all(map_.mean().item() == pytest.approx(1, rel=1e-4) for map_ in features(images))
        for map_, before, mean in zip(features(other), expected, means, strict=True):
            assert torch.allclose(map_, before / mean, rtol=1e-3, atol=1e-4)


def test_gradients_pass_to_the_image_only(reference):
    features = VGG19Features(convolutions(reference), "torchvision")
    features.calibrate(torch.rand(2, 3, 32, 32))
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    sum(map_.sum() for map_ in features(image)).backward()
    assert image.grad.any() and not any(parameter.requires_grad for parameter in features.parameters())


def test_weights_that_cannot_be_had_are_one_sentence(reference, tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="no file"):
        load_vgg19(str(tmp_path / "none.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(InvalidInputError, match="not a readable safetensors"):
        load_vgg19(str(tmp_path / "broken.safetensors"))
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(InvalidInputError, match=r"features\.0\.bias"):
        load_vgg19(str(tmp_path / "part.safetensors"))

    def unreachable(*arguments, **options):
        from urllib.error import URLError

        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InvalidInputError, match="can't download"):
        load_vgg19(None)

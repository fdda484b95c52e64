"""Metrics against independent references: scikit-image, NumPy and values worked out by hand."""

from __future__ import annotations

import math
from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import random_alexnet
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchvision.models import alexnet

from hvq_inpaint.errors import InvalidInputError
from hvq_inpaint.masks import random_walk_mask
from hvq_inpaint.metrics import (
    LPIPS,
    FrechetDistance,
    InceptionFeatures,
    border_step,
    mean_l1,
    psnr,
    round_to_uint8,
    ssim,
)


def pictures(number: int = 3, height: int = 40, width: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets and outputs that differ more from one image of the batch to the next: (B, 3, H, W), rounded to 8 bits."""
    generator = torch.Generator().manual_seed(0)
    target = torch.nn.functional.avg_pool2d(
        torch.rand(number, 3, height + 4, width + 4, generator=generator), 5, stride=1
    )
    strength = torch.linspace(0.02, 0.2, number).reshape(-1, 1, 1, 1)
    return round_to_uint8(target + strength * torch.randn(target.shape, generator=generator)), round_to_uint8(target)


def as_array(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def skimage_ssim(output: np.ndarray, target: np.ndarray) -> float:
    return structural_similarity(
        output, target, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=2
    )


def test_psnr_equals_scikit_image_for_each_image():
    output, target = pictures()
    expected = [
        peak_signal_noise_ratio(as_array(t), as_array(o), data_range=1) for o, t in zip(output, target, strict=True)
    ]
    assert psnr(output, target).tolist() == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_scikit_image_for_each_image():
    output, target = pictures()
    expected = [skimage_ssim(as_array(o), as_array(t)) for o, t in zip(output, target, strict=True)]
    assert ssim(output, target).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_ignores_windows_that_leave_the_image():
    """Only the centres at least five pixels from every border count.

    A change that no such window weighs much is not seen.
    """
    _, target = pictures(1, 11, 11)
    output = target.clone()
    output[..., 5, 5] = 1 - output[..., 5, 5]
    assert ssim(output, target).item() == pytest.approx(
        skimage_ssim(as_array(output[0]), as_array(target[0])), abs=1e-5
    )
    corner = target.clone()
    corner[..., 0, 0] = 1 - corner[..., 0, 0]
    assert ssim(corner, target).item() > 0.999 > ssim(output, target).item()


def test_torchmetrics_mean_counts_mirrored_borders():
    """Why `ssim` does not take torchmetrics' mean.

    It is the SSIM of the images extended by five mirrored pixels on each side.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    output, target = pictures(1)
    theirs = structural_similarity_index_measure(output, target, sigma=1.5, data_range=1.0).item()
    extended = [np.pad(as_array(image[0]), ((5, 5), (5, 5), (0, 0)), mode="reflect") for image in (output, target)]
    assert theirs == pytest.approx(skimage_ssim(*extended), abs=1e-5)
    assert abs(theirs - ssim(output, target).item()) > 1e-5


def test_l1_equals_numpy_whole_and_in_the_hole():
    output, target = pictures()
    missing = np.stack([random_walk_mask(40, 56, 0.3, seed) for seed in range(3)])
    holes = torch.from_numpy(missing)[:, None].float()
    errors = [np.abs(as_array(o) - as_array(t)) for o, t in zip(output, target, strict=True)]
    assert mean_l1(output, target).tolist() == pytest.approx([error.mean() for error in errors], abs=1e-7)
    assert mean_l1(output, target, holes).tolist() == pytest.approx(
        [error[hole].mean() for error, hole in zip(errors, missing, strict=True)], abs=1e-7
    )


def test_hole_psnr_of_a_composite_follows_from_the_whole():
    output, target = pictures()
    missing = torch.from_numpy(np.stack([random_walk_mask(40, 56, ratio, 0) for ratio in (0.1, 0.3, 0.6)]))[
        :, None
    ].float()
    composite = torch.where(missing > 0.5, output, target)
    share = missing.mean(dim=(1, 2, 3))
    expected = psnr(composite, target) + 10 * torch.log10(share)
    assert psnr(composite, target, missing).tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_hand_computed_case():
    """A quarter of the pixels off by 51 / 255 = 0.2: MSE 0.04 in the hole, 0.01 over the image."""
    target = torch.full((1, 3, 16, 16), 102 / 255)
    missing = torch.zeros(1, 1, 16, 16)
    missing[..., :8, :8] = 1
    output = target + 0.2 * missing
    assert psnr(output, target).item() == pytest.approx(20, abs=1e-4)
    assert psnr(output, target, missing).item() == pytest.approx(-20 * math.log10(0.2), abs=1e-4)
    assert mean_l1(output, target).item() == pytest.approx(0.05, abs=1e-6)
    assert mean_l1(output, target, missing).item() == pytest.approx(0.2, abs=1e-6)


def test_equal_images():
    _, target = pictures()
    assert psnr(target, target).tolist() == [math.inf] * 3
    assert ssim(target, target).tolist() == pytest.approx([1.0] * 3)
    assert mean_l1(target, target).tolist() == [0.0] * 3


def test_rounding_is_that_of_a_saved_picture():
    image = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.3])
    assert (round_to_uint8(image) * 255).tolist() == pytest.approx([0, 0, 0, 1, 255, 255], abs=1e-4)
    stored = torch.arange(256) / 255
    assert torch.equal(round_to_uint8(stored), stored)


# ---------------------------------------------------------------- LPIPS


def test_lpips_equals_its_formula_on_torchvision_s_network():
    """Zhang et al. (2018), Eq. (1), by hand: unit vectors, squared differences, lpips' heads, means over the pixels."""
    trunk = random_alexnet()
    metric = LPIPS(trunk)
    output, target = pictures(2, 64, 72)
    network = alexnet(weights=None).eval()
    network.load_state_dict(trunk, strict=False)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    heads = [parameter.flatten() for name, parameter in metric.named_parameters() if name.startswith("network.lins.")]
    if not heads:  # some versions keep them under their own names only
        heads = [getattr(metric.network, f"lin{number}").model[-1].weight.flatten() for number in range(5)]
    expected = torch.zeros(2)
    maps = []
    for image in (output, target):
        x = (image * 2 - 1 - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
        taps = []
        for number, layer in enumerate(network.features):
            x = layer(x)
            if number in (1, 4, 7, 9, 11):
                taps.append(x.detach().clone())
        maps.append(taps)
    for of_output, of_target, head in zip(*maps, heads, strict=True):
        unit_output, unit_target = (tap / (tap.norm(dim=1, keepdim=True) + 1e-10) for tap in (of_output, of_target))
        expected += ((unit_output - unit_target).square() * head.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
    assert metric(output, target).tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert metric.features(output).detach().numpy() == pytest.approx(maps[0][-1].mean(dim=(2, 3)).numpy(), rel=1e-4)
    assert metric(target, target).tolist() == [0, 0]
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_lpips_reads_a_safetensors_file_and_names_what_is_missing(tmp_path):
    trunk = random_alexnet()
    save_file(trunk, tmp_path / "alexnet.safetensors")
    output, target = pictures(1, 64, 64)
    assert torch.equal(
        LPIPS.from_safetensors(tmp_path / "alexnet.safetensors")(output, target), LPIPS(trunk)(output, target)
    )
    with pytest.raises(InvalidInputError, match=r"lack a tensor features.3.bias of shape \(192,\)"):
        LPIPS({name: tensor for name, tensor in trunk.items() if name != "features.3.bias"})
    with pytest.raises(InvalidInputError, match="There is no file"):
        LPIPS.from_safetensors(tmp_path / "nowhere.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(InvalidInputError, match="not a readable safetensors file"):
        LPIPS.from_safetensors(tmp_path / "torn.safetensors")


def test_networks_that_can_not_be_downloaded_are_told_in_a_sentence(monkeypatch):
    def fails(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fails)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fails)
    with pytest.raises(InvalidInputError, match=r"AlexNet of LPIPS .*no route.*--lpips-weights"):
        LPIPS()
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(InvalidInputError, match="pip install torch-fidelity"):
        InceptionFeatures()


# ---------------------------------------------------------------- Fréchet distance


def test_frechet_distance_equals_scipy_s_matrix_root_for_each_set_anew():
    generator = np.random.default_rng(0)
    true = generator.normal(size=(200, 12)).astype(np.float32)
    distance = FrechetDistance(true)
    for number, scale in ((150, 1.5), (90, 0.8)):
        fake = generator.normal(0.3, scale, size=(number, 12)).astype(np.float32)
        means = true.mean(0) - fake.mean(0)
        covariances = [np.cov(features, rowvar=False) for features in (true, fake)]
        root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
        expected = means @ means + np.trace(covariances[0] + covariances[1] - 2 * root)
        assert distance(fake) == pytest.approx(expected, rel=1e-4)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    features = torch.randn(20, 64, generator=torch.Generator().manual_seed(0)).numpy()
    assert 0 <= FrechetDistance(features)(features) < 1e-3


def test_the_step_across_the_border_by_brute_force():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    mask = generator.random((7, 9)) > 0.6
    steps = [
        np.abs(image[row, column].astype(float) - image[row + down, column + right]).mean()
        for down, right in ((1, 0), (0, 1))
        for row in range(7 - down)
        for column in range(9 - right)
        if mask[row, column] != mask[row + down, column + right]
    ]
    assert border_step(image, mask) == (pytest.approx(sum(steps)), len(steps))

"""Each equation against loops or NumPy written from the paper, not from the code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hvq_inpaint import InvalidInputError, losses

GENERATOR = torch.Generator().manual_seed(0)
OUTPUT, TARGET = torch.rand(2, 3, 16, 24, generator=GENERATOR), torch.rand(2, 3, 16, 24, generator=GENERATOR)
KNOWN = (torch.rand(2, 1, 16, 24, generator=GENERATOR) > 0.3).float()


def test_vqvae_loss_equation_2():
    commitment = torch.tensor(0.4)
    expected = ((OUTPUT.numpy() - TARGET.numpy()) ** 2).mean() + 0.25 * 0.4
    assert losses.vqvae_loss(OUTPUT, TARGET, commitment).item() == pytest.approx(expected, rel=1e-6)


def test_mid_loss_equation_6():
    clean, damaged = torch.randn(2, 5, 4, 6, generator=GENERATOR), torch.randn(2, 5, 4, 6, generator=GENERATOR)
    known = KNOWN.clone()
    known[0, :, :8, :8] = 1  # some cells are wholly known
    total_known = total_missing = 0.0
    for b in range(2):
        for row in range(4):
            for column in range(6):
                cell_known = known[b, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].min().item()
                for c in range(5):
                    difference = abs(clean[b, c, row, column].item() - damaged[b, c, row, column].item())
                    total_known += difference * cell_known
                    total_missing += difference * (1 - cell_known)
    expected = (total_known + 8 * total_missing) / clean.numel()
    assert total_known > 0
    assert losses.mid_loss(clean, damaged, known).item() == pytest.approx(expected, rel=1e-5)


def test_credibility_loss_equation_10():
    clean, damaged = torch.randn(2, 5, 4, 6, generator=GENERATOR), torch.randn(2, 5, 4, 6, generator=GENERATOR)
    weights = (torch.rand(2, 1, 4, 6, generator=GENERATOR) > 0.5).float()
    norms = np.linalg.norm((damaged - clean).numpy(), axis=1)
    expected = norms.mean() + 8 * (norms * weights[:, 0].numpy()).mean()
    assert losses.credibility_loss(clean, damaged, weights).item() == pytest.approx(expected, rel=1e-5)


def test_credibility_loss_has_a_finite_gradient_where_the_difference_is_zero():
    clean = torch.randn(1, 4, 2, 2, generator=GENERATOR)
    damaged = clean.clone()
    damaged[..., 1] += 1
    damaged.requires_grad_()
    losses.credibility_loss(clean, damaged, torch.ones(1, 1, 2, 2)).backward()
    assert torch.isfinite(damaged.grad).all()
    assert not damaged.grad[..., 0].any() and damaged.grad[..., 1].any()


def test_code_loss_is_the_mean_surprise_at_the_missing_cells():
    latents, codebook = torch.randn(2, 5, 4, 6, generator=GENERATOR), torch.randn(7, 5, generator=GENERATOR)
    codes = torch.randint(7, (2, 4, 6), generator=GENERATOR)
    known = KNOWN.clone()
    known[0, :, :8, :8] = 1  # some cells are wholly known
    surprises = []
    for b in range(2):
        for row in range(4):
            for column in range(6):
                if known[b, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].min() == 1:
                    continue
                distances = np.square(codebook.numpy() - latents[b, :, row, column].numpy()).sum(axis=1)
                probabilities = np.exp(-distances / 1.7)
                surprises.append(-np.log(probabilities[codes[b, row, column]] / probabilities.sum()))
    assert 0 < len(surprises) < codes.numel()
    loss = losses.code_loss(latents, codes, codebook, known, torch.tensor(1.7))
    assert loss.item() == pytest.approx(np.mean(surprises), rel=1e-5)
    assert losses.code_loss(latents, codes, codebook, torch.ones_like(known), torch.tensor(1.7)).item() == 0
    share = (1 - losses.pool_known(known, tuple(codes.shape[-2:]))).mean()
    parts = [
        losses.code_loss(*of_image, known[index : index + 1], torch.tensor(1.7), share)
        for index in range(len(latents))
        for of_image in [(latents[index : index + 1], codes[index : index + 1], codebook)]
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(loss.item(), rel=1e-6)


def test_hole_and_valid_loss_equations_11_and_12():
    difference = np.abs(OUTPUT.numpy() - TARGET.numpy())
    known = KNOWN.numpy()
    assert losses.hole_loss(OUTPUT, TARGET, KNOWN).item() == pytest.approx(
        (difference * (1 - known)).sum() / difference.size, rel=1e-5
    )
    assert losses.valid_loss(OUTPUT, TARGET, KNOWN).item() == pytest.approx(
        (difference * known).sum() / difference.size, rel=1e-5
    )


def test_composite_equation_14_keeps_known_pixels_bit_for_bit():
    result = losses.composite(OUTPUT, TARGET, KNOWN)
    where = KNOWN.bool().expand_as(TARGET)
    assert torch.equal(result[where], TARGET[where]) and torch.equal(result[~where], OUTPUT[~where])


def features(image: torch.Tensor) -> list[torch.Tensor]:
    """Five maps of different sizes and widths that a test can compute by hand."""
    pooled = [torch.nn.functional.avg_pool2d(image, 2**level) if level else image for level in range(4)]
    return [*pooled, torch.cat([pooled[3], pooled[3].square()], dim=1)]


def distance(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A stand-in for LPIPS: one value for each image."""
    return (output - target).square().mean(dim=(1, 2, 3)).sqrt()


def test_perceptual_loss_equation_13():
    pasted = losses.composite(OUTPUT, TARGET, KNOWN)
    expected = sum(
        np.abs(t.numpy() - c.numpy()).mean() + np.abs(t.numpy() - o.numpy()).mean()
        for o, c, t in zip(features(OUTPUT), features(pasted), features(TARGET), strict=True)
    )
    assert losses.perceptual_loss(features, OUTPUT, pasted, TARGET).item() == pytest.approx(expected, rel=1e-5)


def test_style_loss_equation_15():
    pasted = losses.composite(OUTPUT, TARGET, KNOWN)

    def gram(feature):
        channels = len(feature)
        return np.array(
            [[sum((feature[i] * feature[j]).reshape(-1)) for j in range(channels)] for i in range(channels)]
        )

    expected = 0.0
    for o, c, t in zip(features(OUTPUT), features(pasted), features(TARGET), strict=True):
        _, channels, height, width = t.shape
        of_images = [
            np.abs(gram(t[b].double().numpy()) - gram(c[b].double().numpy())).sum()
            + np.abs(gram(t[b].double().numpy()) - gram(o[b].double().numpy())).sum()
            for b in range(2)
        ]
        expected += np.mean(of_images) / (channels**3 * height * width)
    assert losses.style_loss(features, OUTPUT, pasted, TARGET).item() == pytest.approx(expected, rel=1e-4)


def test_unit_feature_loss_is_lpips_with_equal_weights():
    expected = []
    for output, target in zip(features(OUTPUT), features(TARGET), strict=True):
        units = [map_.numpy() / np.linalg.norm(map_.numpy(), axis=1, keepdims=True) for map_ in (output, target)]
        expected.append(((units[0] - units[1]) ** 2).sum(axis=1).mean())
    assert losses.unit_feature_loss(features, OUTPUT, TARGET).item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_unit_feature_loss_of_dark_vectors_has_a_finite_gradient():
    output = torch.zeros(1, 3, 16, 16, requires_grad=True)
    losses.unit_feature_loss(features, output, torch.zeros(1, 3, 16, 16)).backward()
    assert torch.isfinite(output.grad).all()


def test_unit_features_that_are_none_are_equal_to_each_other_and_at_distance_one_from_others():
    one, none = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    distances = {(0, 0): (none, none), (1, 0): (one, none), (1, 1): (one, one), (1, -1): (one, -one)}
    expected = {(0, 0): 0, (1, 0): 1, (1, 1): 0, (1, -1): 4}
    for name, (output, target) in distances.items():
        loss = losses.unit_feature_loss(lambda image: [image], output, target)
        assert loss.item() == pytest.approx(expected[name], abs=1e-6)


def test_gram_matrices_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert losses.gram_matrix(OUTPUT.bfloat16()).dtype == torch.float32


def test_tv_loss_equation_16():
    image = OUTPUT.numpy()
    expected = np.abs(np.diff(image, axis=3)).mean() + np.abs(np.diff(image, axis=2)).mean()
    assert losses.tv_loss(OUTPUT).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("preset", list(losses.LOSS_PRESETS))
def test_total_loss_equation_17_is_the_weighted_sum(preset):
    weights = losses.LOSS_PRESETS[preset]
    total, terms = losses.refiner_loss(OUTPUT, TARGET, KNOWN, weights, features, distance)
    pasted = losses.composite(OUTPUT, TARGET, KNOWN)
    expected = weights.hole * losses.hole_loss(OUTPUT, TARGET, KNOWN) + weights.valid * losses.valid_loss(
        OUTPUT, TARGET, KNOWN
    )
    if preset in ("paper", "pconv"):
        expected = expected + weights.perceptual * losses.perceptual_loss(features, OUTPUT, pasted, TARGET)
        expected = (
            expected
            + weights.style * losses.style_loss(features, OUTPUT, pasted, TARGET)
            + weights.tv * losses.tv_loss(pasted)
        )
    expected = expected + weights.unit_features * losses.unit_feature_loss(features, pasted, TARGET)
    expected = expected + weights.lpips * distance(pasted, TARGET).mean()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ("style" in terms) == (preset in ("paper", "pconv"))
    assert ("lpips" in terms) == preset.endswith("lpips")


def test_lpips_is_taken_in_float32_under_autocast():
    types = []

    def observed(output, target):
        types.extend([output.dtype, target.dtype, torch.nn.functional.conv2d(output, output[:, :, :3, :3]).dtype])
        return distance(output, target)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses.refiner_loss(OUTPUT.bfloat16(), TARGET, KNOWN, losses.LOSS_PRESETS["lpips"], lpips=observed)
    assert set(types) == {torch.float32}


def test_weights_that_need_lpips_are_refused_without():
    with pytest.raises(InvalidInputError, match="LPIPS"):
        losses.refiner_loss(OUTPUT, TARGET, KNOWN, losses.LOSS_PRESETS["lpips"])


def test_weights_that_need_features_are_refused_without():
    with pytest.raises(InvalidInputError, match="feature network"):
        losses.refiner_loss(OUTPUT, TARGET, KNOWN, losses.LOSS_PRESETS["paper"])

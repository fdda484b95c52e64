"""Eq. (7) to (9) against a brute force that builds every table the package avoids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hvq_inpaint import InvalidInputError
from hvq_inpaint.credibility import CredibilityMap, credibility_weights, max_distance


def brute_force(clean, damaged, codebook, quantile):
    def vectors(latents):
        return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).double().numpy()

    clean, damaged, codebook = vectors(clean), vectors(damaged), codebook.double().numpy()
    distances = np.linalg.norm(clean[:, None] - codebook[None], axis=2)
    q1 = codebook[distances.argmin(axis=1)]  # the collection Q1, one vector for each clean latent
    max_dist = np.quantile(distances.min(axis=1), quantile)
    to_q1 = np.linalg.norm(damaged[:, None] - q1[None], axis=2).min(axis=1)  # the paper's N x N search
    return (to_q1 > max_dist).astype(float), max_dist


@pytest.mark.parametrize("quantile", [1.0, 0.99, 0.9])
def test_weights_equal_brute_force(quantile):
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn(2, 4, 6, 5, generator=generator)
    damaged = 1.6 * torch.randn(2, 4, 6, 5, generator=generator)
    codebook = torch.randn(64, 4, generator=generator)  # more codes than the batch uses
    weights, max_dist = credibility_weights(clean, damaged, codebook, quantile)
    expected, expected_max = brute_force(clean, damaged, codebook, quantile)
    assert weights.shape == (2, 1, 6, 5)
    assert np.isclose(max_dist.item(), expected_max, rtol=1e-5)
    assert (weights.reshape(-1).numpy() == expected).all()
    assert 0 < expected.sum() < expected.size


def test_codes_that_the_clean_batch_does_not_use_lend_no_credibility():
    codebook = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    clean = 0.1 * torch.randn(1, 2, 4, 4)
    damaged = torch.zeros(1, 2, 4, 4)
    damaged[:, 0, 0, 0] = 100  # exactly on the unused code
    weights, _ = credibility_weights(clean, damaged, codebook)
    assert weights.sum() == 1 and weights[0, 0, 0, 0] == 1


def test_a_quantile_outside_its_range_is_refused():
    with pytest.raises(InvalidInputError, match="quantile"):
        credibility_weights(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.zeros(3, 2), 1.5)


@pytest.mark.parametrize("quantile", [1.0, 0.5])
def test_a_global_batch_of_hundreds_of_processes_is_not_too_large(quantile):
    distances = torch.arange(2**24 + 3, dtype=torch.float32)  # more than torch.quantile takes
    assert max_distance(distances, quantile) == pytest.approx(quantile * (2**24 + 2), rel=1e-6)


def test_the_map_is_the_share_of_larger_clean_distances():
    generator = np.random.default_rng(0)
    clean = generator.gamma(2.0, 1.0, 5000)
    credibility = CredibilityMap()
    credibility.calibrate(torch.from_numpy(clean))
    distances = generator.uniform(0, clean.max() * 1.2, 300)
    latents = torch.from_numpy(distances).float().reshape(1, 1, 15, 20)  # one dimension, the only code at 0
    result = credibility(latents, torch.zeros(1, 1)).reshape(-1).numpy()
    expected = (clean[None] > distances[:, None]).mean(axis=1)
    assert result.min() >= 0 and result.max() <= 1
    assert np.abs(result - expected).max() < 2 / 256
    assert credibility.quantiles[-1].item() == pytest.approx(clean.max(), rel=1e-6)  # MaxDist

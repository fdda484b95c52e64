"""Eq. (1), (3) to (5) against plain NumPy, and the promises about when a codebook changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hvq_inpaint.quantizer import EMAQuantizer, codebook_usage, nearest_codes


def vectors_of(latents: torch.Tensor) -> np.ndarray:
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).numpy().astype(np.float64)


def test_nearest_code_equals_brute_force():
    generator = torch.Generator().manual_seed(0)
    vectors, codebook = torch.randn(20_000, 8, generator=generator), torch.randn(50, 8, generator=generator)
    table = ((vectors.numpy()[:, None].astype(np.float64) - codebook.numpy()[None].astype(np.float64)) ** 2).sum(-1)
    chosen = table[np.arange(len(table)), nearest_codes(vectors, codebook).numpy()]
    assert np.allclose(chosen, table.min(axis=1), rtol=1e-5)


def test_three_updates_by_hand_with_an_unused_code():
    quantizer = EMAQuantizer(num_codes=6, dim=3, decay=0.9).train()
    with torch.no_grad():
        quantizer.codebook[5] = 1e3  # far from everything: never used
    book = quantizer.codebook.numpy().astype(np.float64).copy()
    counts, sums = np.zeros(6), np.zeros((6, 3))
    generator = torch.Generator().manual_seed(1)
    for step in range(3):
        latents = torch.randn(2, 3, 4, 5, generator=generator)
        quantized, codes, commitment = quantizer(latents)

        vectors = vectors_of(latents)
        expected_codes = ((vectors[:, None] - book[None]) ** 2).sum(-1).argmin(axis=1)
        assert (codes.reshape(-1).numpy() == expected_codes).all()
        assert np.isclose(commitment.item(), ((vectors - book[expected_codes]) ** 2).mean(), rtol=1e-5)
        assert np.allclose(vectors_of(quantized), book[expected_codes], atol=1e-6)

        n = np.bincount(expected_codes, minlength=6).astype(float)
        s = np.zeros((6, 3))
        np.add.at(s, expected_codes, vectors)
        counts = n if step == 0 else 0.9 * counts + 0.1 * n
        sums = s if step == 0 else 0.9 * sums + 0.1 * s
        for code in range(6):
            if counts[code] > 0:
                book[code] = sums[code] / counts[code]
        assert np.allclose(quantizer.counts.numpy(), counts, rtol=1e-5)
        assert np.allclose(quantizer.sums.numpy(), sums, atol=1e-5)
        assert np.allclose(quantizer.codebook.numpy(), book, rtol=1e-4, atol=1e-5)
    assert counts[5] == 0 and (quantizer.codebook[5] == 1e3).all()


def test_parts_of_a_batch_count_as_one():
    latents = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    whole, parted = EMAQuantizer(6, 3).train(), EMAQuantizer(6, 3).train()
    parted.load_state_dict(whole.state_dict())
    for _ in range(2):
        expected, _, _ = whole(latents)
        with parted.one_batch():
            quantized = torch.cat([parted(part)[0] for part in latents.split([3, 2, 1])])
        assert torch.equal(quantized, expected)
        for name, tensor in whole.state_dict().items():
            assert torch.allclose(parted.state_dict()[name], tensor, atol=1e-6, rtol=1e-6)
        assert torch.equal(parted.batch_counts, whole.batch_counts)
    assert parted.batch_counts.sum() == 6 * 4 * 5


def test_a_batch_that_fails_leaves_the_codebook_alone():
    quantizer = EMAQuantizer(6, 3).train()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    with pytest.raises(ZeroDivisionError), quantizer.one_batch():
        quantizer(torch.randn(1, 3, 4, 4))
        raise ZeroDivisionError
    assert all(torch.equal(before[name], tensor) for name, tensor in quantizer.state_dict().items())
    quantizer(torch.randn(1, 3, 4, 4))
    assert quantizer.counts.sum() == 16


def test_quantized_equals_the_codebook_exactly_and_passes_its_gradient_straight():
    quantizer = EMAQuantizer(16, 4).eval()
    latents = torch.randn(2, 4, 3, 3, requires_grad=True)
    quantized, codes, _ = quantizer(latents)
    assert torch.equal(quantized, quantizer.codebook[codes].permute(0, 3, 1, 2))
    weight = torch.randn_like(quantized)
    (quantized * weight).sum().backward()
    assert torch.equal(latents.grad, weight)


def test_commitment_pulls_the_latents_only():
    quantizer = EMAQuantizer(16, 4).train()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    before = quantizer.codebook.clone()
    _, codes, commitment = quantizer(latents)
    commitment.backward()
    expected = 2 * (latents.detach() - before[codes].permute(0, 3, 1, 2)) / latents.numel()
    assert torch.allclose(latents.grad, expected, atol=1e-7)


def test_nothing_changes_in_eval_mode_or_by_quantize():
    quantizer = EMAQuantizer(16, 4)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()(torch.randn(2, 4, 3, 3))
    quantizer.train().quantize(torch.randn(2, 4, 3, 3))
    assert all(torch.equal(before[name], tensor) for name, tensor in quantizer.state_dict().items())


def test_codebook_arithmetic_is_float32_under_autocast():
    torch.manual_seed(0)
    plain, under_autocast = EMAQuantizer(16, 4).train(), EMAQuantizer(16, 4).train()
    under_autocast.load_state_dict(plain.state_dict())
    latents = torch.randn(4, 4, 8, 8)
    plain(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized, _, _ = under_autocast(latents)
    assert quantized.dtype == torch.float32
    assert torch.equal(plain.codebook, under_autocast.codebook)


def test_start_from_data_puts_codes_where_the_latents_are():
    centres = torch.tensor([[10.0, 0], [-10, 0], [0, 10], [0, -10]])
    generator = torch.Generator().manual_seed(0)
    latents = (
        (centres[torch.randint(4, (400,), generator=generator)] + 0.1 * torch.randn(400, 2, generator=generator))
        .reshape(1, 20, 20, 2)
        .permute(0, 3, 1, 2)
    )
    quantizer = EMAQuantizer(16, 2).train()
    quantizer(latents)
    quantizer.start_from(latents, generator)
    assert (torch.cdist(quantizer.codebook, centres).min(dim=1).values < 0.5).all()
    assert not quantizer.counts.any() and not quantizer.sums.any()


def test_a_restarted_code_survives_the_next_update():
    torch.manual_seed(0)
    quantizer = EMAQuantizer(8, 2).train()
    with torch.no_grad():
        quantizer.codebook[7] = 1e3
    for _ in range(3):
        quantizer(torch.randn(4, 2, 8, 8))
    latents = torch.randn(4, 2, 8, 8)
    assert quantizer.restart_dead_codes(latents, generator=torch.Generator().manual_seed(0)) == 1
    vectors = latents.permute(0, 2, 3, 1).reshape(-1, 2)
    assert (vectors == quantizer.codebook[7]).all(dim=1).any()
    assert torch.allclose(quantizer.sums[7] / quantizer.counts[7], quantizer.codebook[7])
    quantizer(torch.randn(4, 2, 8, 8))
    assert quantizer.codebook[7].abs().max() < 10


def test_usage_and_perplexity():
    assert codebook_usage(torch.tensor([0, 1, 2, 3]), 8) == (0.5, pytest.approx(4))
    assert codebook_usage(torch.zeros(10, dtype=torch.int64), 8) == (0.125, pytest.approx(1))


def test_latents_of_another_width_are_refused():
    with pytest.raises(ValueError, match="4 channels"):
        EMAQuantizer(8, 2)(torch.randn(1, 4, 2, 2))

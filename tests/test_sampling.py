"""Codes drawn for further answers: their distribution, where they are drawn, and that no two answers are alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_model
from scipy.special import softmax

from hvq_inpaint import sampling
from hvq_inpaint.sampling import another_coarse, codes_by_rank, sample_codes


def test_codes_are_drawn_as_often_as_their_distance_says():
    generator = torch.Generator().manual_seed(0)
    codebook, vector = torch.randn(6, 4, generator=generator), torch.randn(4, generator=generator)
    latents = vector[None, :, None, None].expand(1, 4, 200, 200)
    everywhere = torch.ones(1, 200, 200, dtype=torch.bool)
    codes = sample_codes(
        latents, codebook, torch.tensor(3.0), everywhere, torch.zeros(1, 200, 200, dtype=torch.int64), generator
    )
    drawn = np.bincount(codes.flatten(), minlength=6) / codes.numel()
    expected = softmax(-((codebook - vector).square().sum(dim=1).double().numpy()) / 3)
    assert np.abs(drawn - expected).max() < 4 * 0.5 / 200  # four standard deviations of the most uncertain share


def test_codes_are_kept_where_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    doubtful = torch.rand(2, 5, 7, generator=generator) > 0.5
    kept = torch.full((2, 5, 7), 3)
    codes = sample_codes(torch.randn(2, 4, 5, 7), torch.randn(9, 4), torch.tensor(50.0), doubtful, kept, generator)
    assert torch.equal(codes[~doubtful], kept[~doubtful])
    assert (codes[doubtful] != 3).any()


def test_ranks_are_those_of_a_sort_by_distance():
    vectors, codebook = torch.randn(10, 4), torch.randn(6, 4)
    distances = ((vectors[:, None] - codebook) ** 2).sum(dim=2).numpy()
    for rank in (1, 2, 5, 6, 11):
        expected = np.argsort(distances, axis=1)[:, 1 + (rank - 1) % 5]
        assert np.array_equal(codes_by_rank(vectors, codebook, rank), expected)


class TestAnotherCoarse:
    @pytest.fixture
    def parts(self):
        model = make_model()
        damaged, known = torch.rand(2, 3, 48, 64), torch.ones(2, 1, 48, 64)
        known[0, :, 8:32, 16:40] = 0
        known[1, :, 20:22, 50:52] = 0
        with torch.no_grad():
            encoded = model.encode(damaged, known)
        return model, encoded, known

    def pictures(self, parts, credibility: float, numbers=(1, 2, 3), seeds=(0, 0)):
        model, encoded, known = parts
        with torch.no_grad():
            return [
                another_coarse(
                    model.vqvae,
                    encoded.global_latents,
                    encoded.global_codes,
                    encoded.mid,
                    torch.full((2, 1, 6, 8), credibility),
                    torch.tensor(1.0),
                    known,
                    number,
                    [torch.Generator().manual_seed(seed) for seed in seeds],
                )
                for number in numbers
            ]

    def test_answers_differ_even_where_all_is_credible_and_nothing_is_drawn(self, parts):
        model, encoded, _ = parts
        with torch.no_grad():
            plain = model.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)[2]
        pictures = [plain, *self.pictures(parts, credibility=1.0)]
        for index in range(2):
            for i, one in enumerate(pictures):
                assert not any(torch.equal(one[index], other[index]) for other in pictures[:i])

    def test_what_is_forced_to_differ_lies_in_the_hole(self, parts):
        model, encoded, known = parts
        with torch.no_grad():
            plain = model.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)[2]
        (other,) = self.pictures(parts, credibility=1.0, numbers=(1,))
        for index in range(2):
            change = (other - plain)[index].abs().amax(dim=0)
            row, column = divmod(int(change.argmax()), change.shape[1])
            rows, columns = (known[index, 0] == 0).nonzero(as_tuple=True)
            assert rows.min() - 8 <= row <= rows.max() + 8 and columns.min() - 8 <= column <= columns.max() + 8

    def test_the_seed_of_one_photograph_does_not_touch_the_other(self, parts):
        (one,) = self.pictures(parts, 0.0, numbers=(1,), seeds=(0, 1))
        (other,) = self.pictures(parts, 0.0, numbers=(1,), seeds=(0, 2))
        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])

    def test_the_scale_of_one_photograph_does_not_touch_the_other(self, parts):
        model, encoded, known = parts
        (one,) = self.pictures(parts, 0.0, numbers=(1,))
        louder = replace(encoded, mid=encoded.mid * torch.tensor([1.0, 30.0])[:, None, None, None])
        (other,) = self.pictures((model, louder, known), 0.0, numbers=(1,))
        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])

    def test_a_larger_spread_moves_more(self, parts, monkeypatch):
        model, encoded, _ = parts
        with torch.no_grad():
            plain = model.vqvae.decode_with_mid(encoded.global_quantized, encoded.mid)[2]
        moved = []
        for spread in (0.01, 2.0, 50.0):
            monkeypatch.setattr(sampling, "SPREAD", spread)
            moved.append(float((self.pictures(parts, 0.0, numbers=(1,))[0][0] - plain[0]).abs().mean()))
        assert moved == sorted(moved) and moved[0] < moved[2] / 2

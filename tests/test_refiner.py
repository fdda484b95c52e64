"""The multi-dilation refiner: Figure 4 written out, equal widths of the single-rate variants, the clamp."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hvq_inpaint import HVQConfig
from hvq_inpaint.refiner import MultiDilationBlock, MultiDilationRefiner

TINY = HVQConfig.preset("tiny")


def test_a_block_is_figure_4():
    block = MultiDilationBlock(16, (1, 2, 4, 8))
    x = torch.randn(1, 16, 20, 20)
    r = torch.cat(
        [
            F.relu(F.conv2d(x, branch.weight, branch.bias, padding=rate, dilation=rate))
            for branch, rate in zip(block.branches, (1, 2, 4, 8), strict=True)
        ],
        dim=1,
    )
    assert r.shape == x.shape
    assert torch.allclose(block(x), x + F.conv2d(r, block.merge.weight, block.merge.bias, padding=1), atol=1e-6)


@pytest.mark.parametrize("rate", [1, 2, 4, 8])
def test_single_rate_variants_of_table_6_keep_the_width(rate):
    def sizes(rates):
        return [tuple(parameter.shape) for parameter in MultiDilationBlock(16, rates).parameters()]

    assert sizes((rate,)) == sizes((1, 2, 4, 8))
    assert all(branch.dilation == (rate, rate) for branch in MultiDilationBlock(16, (rate,)).branches)


def test_a_block_reaches_as_far_as_its_rates():
    block = MultiDilationBlock(16, (1, 2, 4, 8))
    x = torch.randn(1, 16, 41, 41, requires_grad=True)
    block(x)[0, :, 20, 20].sum().backward()
    reached = x.grad.abs().sum(dim=(0, 1)) > 0
    rows = torch.nonzero(reached.any(dim=1)).flatten()
    assert (rows.min().item(), rows.max().item()) == (20 - 9, 20 + 9)  # 8 by the branch, 1 by the last convolution


def test_a_fresh_refiner_passes_on_the_variance_of_its_input():
    refiner = MultiDilationRefiner(HVQConfig.preset("small"))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = refiner.encoder(torch.cat([image, torch.zeros(2, 1, 64, 64)], dim=1))
        after = refiner.blocks(features)
    assert 0.2 < features.std() < 2 and 0.5 < after.std() / features.std() < 3


def test_clamped_in_eval_mode_only():
    refiner = MultiDilationRefiner(TINY)
    torch.nn.init.constant_(refiner.decoder[-1].bias, 5.0)
    image, known = torch.rand(1, 3, 16, 24), torch.ones(1, 1, 16, 24)
    assert refiner.train()(image, known).max() > 1
    assert refiner.eval()(image, known).max() == 1

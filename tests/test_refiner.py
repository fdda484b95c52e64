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
    maps = {}
    refiner.blocks.register_forward_hook(lambda _, arguments, output: maps.update(before=arguments[0], after=output))
    with torch.no_grad():
        refiner(torch.rand(2, 3, 64, 64), torch.ones(2, 1, 64, 64))
    assert 0.2 < maps["before"].std() < 2 and 0.5 < maps["after"].std() / maps["before"].std() < 3


@pytest.mark.parametrize(("skips", "residual"), [(False, False), (True, False), (True, True)])
def test_the_refiner_layer_by_layer(skips, residual):
    """Every layer again, from the weights: three convolutions, the blocks, two upsamplings, skips, the residual."""
    config = HVQConfig.from_dict({**TINY.to_dict(), "refiner_skips": skips, "refiner_residual": residual})
    refiner = MultiDilationRefiner(config).train()
    torch.nn.init.normal_(refiner.output.weight)
    image, known = torch.rand(2, 3, 16, 24), (torch.rand(2, 1, 16, 24) > 0.4).float()
    weights = {name: parameter.detach() for name, parameter in refiner.named_parameters()}

    def convolve(x, name, **options):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def doubled(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    full = convolve(torch.cat([image, 1 - known], dim=1), "encoder.0", padding=3).relu()
    half = convolve(full, "encoder.1", stride=2, padding=1).relu()
    quarter = refiner.blocks(convolve(half, "encoder.2", stride=2, padding=1).relu())
    x = doubled(quarter)
    x = convolve(torch.cat([x, half], dim=1) if skips else x, "decoder.0", padding=1).relu()
    x = doubled(x)
    x = convolve(torch.cat([x, full], dim=1) if skips else x, "decoder.1", padding=1).relu()
    made = convolve(x, "output", padding=1)
    assert torch.allclose(refiner(image, known), image + (1 - known) * made if residual else made, atol=1e-4)


def test_an_untrained_residual_refiner_gives_back_what_it_gets_and_learns_all_of_its_layers():
    refiner = MultiDilationRefiner(HVQConfig.from_dict({**TINY.to_dict(), "refiner_residual": True})).train()
    image, known = torch.rand(2, 3, 16, 24), (torch.rand(2, 1, 16, 24) > 0.4).float()
    assert torch.equal(refiner(image, known), image)
    optimizer = torch.optim.SGD(refiner.parameters(), lr=0.1)
    for _ in range(2):  # the last layer first, and through it the others
        optimizer.zero_grad()
        refiner(image, known).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in refiner.parameters())


def test_clamped_in_eval_mode_only():
    refiner = MultiDilationRefiner(TINY)
    torch.nn.init.constant_(refiner.output.bias, 5.0)
    image, known = torch.rand(1, 3, 16, 24), torch.ones(1, 1, 16, 24)
    assert refiner.train()(image, known).max() > 1
    assert refiner.eval()(image, known).max() == 1


def test_gradient_checkpointing_changes_no_gradient_and_keeps_no_activations():
    calls, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        refiner = MultiDilationRefiner(HVQConfig.preset("tiny")).train()
        refiner.gradient_checkpointing = checkpointing
        calls.append(0)
        refiner.blocks[0].register_forward_pre_hook(lambda *_: calls.__setitem__(-1, calls[-1] + 1))
        refiner(torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)).square().mean().backward()
        gradients.append([parameter.grad for parameter in refiner.parameters()])
    assert calls == [1, 2]  # once more for the gradient
    assert all(torch.allclose(kept, again, atol=1e-7) for kept, again in zip(*gradients, strict=True))

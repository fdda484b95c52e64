"""The hierarchical VQ-VAE: shapes, the two levels, and where its gradients go."""

from __future__ import annotations

import torch

from hvq_inpaint import HVQConfig
from hvq_inpaint.vqvae import HierarchicalVQVAE


def test_shapes_of_the_paper():
    output = HierarchicalVQVAE(HVQConfig()).eval()(torch.rand(1, 3, 256, 256))
    assert output.mid.shape == (1, 128, 64, 64)
    assert output.global_latents.shape == output.global_quantized.shape == (1, 64, 32, 32)
    assert output.local_latents.shape == output.local_quantized.shape == (1, 64, 64, 64)
    assert output.global_codes.shape == (1, 32, 32) and output.local_codes.shape == (1, 64, 64)
    assert output.reconstruction.shape == (1, 3, 256, 256)


def test_every_weight_gets_a_gradient_from_equation_2():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny")).train()
    image = torch.rand(2, 3, 32, 32)
    output = vqvae(image)
    ((output.reconstruction - image).square().mean() + 0.25 * output.commitment).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vqvae.parameters())


def test_the_warm_up_quantises_nothing_and_leaves_the_codebooks_alone():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny")).train()
    before = vqvae.global_quantizer.codebook.clone()
    reconstruction, global_latents, local_latents = vqvae.forward_continuous(torch.rand(1, 3, 32, 32))
    assert reconstruction.shape == (1, 3, 32, 32)
    assert global_latents.shape == (1, 8, 4, 4) and local_latents.shape == (1, 8, 8, 8)
    assert torch.equal(before, vqvae.global_quantizer.codebook) and not vqvae.local_quantizer.counts.any()


def test_training_updates_both_codebooks_and_eval_neither():
    vqvae = HierarchicalVQVAE(HVQConfig.preset("tiny"))
    for training in (True, False):
        before = [vqvae.global_quantizer.codebook.clone(), vqvae.local_quantizer.codebook.clone()]
        vqvae.train(training)(torch.rand(1, 3, 32, 32))
        after = [vqvae.global_quantizer.codebook, vqvae.local_quantizer.codebook]
        assert [torch.equal(b, a) for b, a in zip(before, after, strict=True)] == [not training] * 2

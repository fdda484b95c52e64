"""EncoderB1: its start from EncoderA1, its position signal, its attention."""

from __future__ import annotations

import pytest
import torch

from hvq_inpaint import HVQConfig
from hvq_inpaint.encoder import EncoderB1, TransformerBlock, rotary_angles, rotate
from hvq_inpaint.vqvae import EncoderA1

TINY = HVQConfig.preset("tiny")


def test_started_from_encoder_a1_it_equals_it():
    encoder_a1, encoder_b1 = EncoderA1(TINY), EncoderB1(TINY)
    encoder_b1.start_from(encoder_a1, torch.rand(3, 3, 32, 32))
    image, known = torch.rand(2, 3, 32, 40), (torch.rand(2, 1, 32, 40) > 0.5).float()
    expected_mid, expected_latents = encoder_a1(image * known)
    mid, latents = encoder_b1(image * known, known)
    assert torch.allclose(mid, expected_mid, atol=1e-6) and torch.allclose(latents, expected_latents, atol=1e-6)


def test_with_harmonic_input_it_starts_from_the_codes_of_a_smooth_fill():
    encoder_a1 = EncoderA1(TINY)
    encoder_b1 = EncoderB1(HVQConfig.from_dict({**TINY.to_dict(), "harmonic_input": True}))
    encoder_b1.start_from(encoder_a1, torch.rand(3, 3, 32, 32))
    ramp = torch.linspace(0, 1, 40).expand(2, 3, 32, 40)  # which solves Laplace's equation
    known = torch.ones(2, 1, 32, 40)
    known[:, :, 12:20, 16:24] = 0
    for damaged in (ramp * known, torch.where(known > 0, ramp, 7.0)):  # what the hole holds does not matter
        for made, expected in zip(encoder_b1(damaged, known), encoder_a1(ramp), strict=True):
            assert torch.allclose(made, expected, atol=1e-2)


@pytest.mark.parametrize("feedback", [False, True])
def test_every_weight_gets_a_gradient_once_the_zeros_have_moved(feedback):
    encoder = EncoderB1(HVQConfig.from_dict({**TINY.to_dict(), "transformer_feedback": feedback}))
    for parameter in encoder.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    mid, latents = encoder(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))
    (mid.square().sum() + latents.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


def test_rotary_positions_depend_on_distances_only():
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    angles = rotary_angles(9, 11, 16, torch.device("cpu")).reshape(9, 11, 8)

    def product(a, b):
        return (rotate(query, angles[a][None]) * rotate(key, angles[b][None])).sum().item()

    assert product((0, 0), (2, 3)) == pytest.approx(product((5, 6), (7, 9)), abs=1e-4)
    assert product((0, 0), (2, 3)) != pytest.approx(product((0, 0), (3, 2)), abs=1e-4)
    assert torch.allclose(rotate(query, angles[4, 4][None]).norm(), query.norm(), atol=1e-5)


def test_attention_equals_softmax_written_out():
    torch.manual_seed(0)
    block = TransformerBlock(width=16, heads=2)
    tokens, angles = torch.randn(1, 6, 16), rotary_angles(2, 3, 8, torch.device("cpu"))
    normed = block.norm1(tokens)
    query, key, value = block.query_key_value(normed).split(16, dim=-1)
    heads = []
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        q, k, v = rotate(query[..., part], angles), rotate(key[..., part], angles), value[..., part]
        heads.append(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1) @ v)
    expected = tokens + block.project(torch.cat(heads, dim=-1))
    expected = expected + block.mlp(block.norm2(expected))
    assert torch.allclose(block(tokens, angles), expected, atol=1e-5)


def test_heads_start_out_looking_from_everywhere_to_close_by():
    bias = TransformerBlock(width=256, heads=8).query_key_value.bias.detach().view(3, 8, 1, 32)
    angles = rotary_angles(1, 9, 32, torch.device("cpu"))
    query = rotate(bias[0].expand(8, 9, 32), angles)
    attention = torch.softmax(query @ query.transpose(1, 2) / 32**0.5, dim=-1)[:, 0]  # of the first cell
    shares = attention[:, 3] / attention[:, 0]
    assert shares[0] == 1 and (shares.diff() < 0).all()
    assert shares[-1].item() == pytest.approx(1 / 20, abs=0.01)


def test_the_scale_of_the_latents_does_not_matter_to_the_transformer():
    encoder_a1, images = EncoderA1(TINY), torch.rand(3, 3, 32, 32)
    corrections = []
    for scale in (1.0, 0.01):
        with torch.no_grad():
            encoder_a1.to_global[-1].weight.mul_(scale)
            encoder_a1.to_global[-1].bias.mul_(scale)
        torch.manual_seed(0)
        encoder = EncoderB1(TINY)
        encoder.start_from(encoder_a1, images)
        torch.nn.init.normal_(encoder.to_latents.weight)
        plain = encoder_a1(images)[1]
        corrections.append((encoder(images, torch.ones(3, 1, 32, 32))[1] - plain) / plain.std())
    assert torch.allclose(corrections[0], corrections[1], rtol=1e-2, atol=1e-3)


def test_the_transformer_sees_the_whole_image():
    encoder = EncoderB1(TINY)
    torch.nn.init.normal_(encoder.to_latents.weight, std=0.1)
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    _, latents = encoder(image, torch.ones(1, 1, 128, 128))
    latents[0, :, 0, 0].sum().backward()
    assert image.grad[0, :, -8:, -8:].any()

"""Poisson blending: against a sparse direct solution of the same equation, and what follows from the equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_pixels
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from hvq_inpaint.blending import harmonic_extension, poisson_composite
from hvq_inpaint.masks import make_mask


def tensors(height: int, width: int, kind: str, ratio: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(make_pixels(height, width, 0).copy()).permute(2, 0, 1)[None].float() / 255
    return image, torch.from_numpy(~make_mask(kind, height, width, ratio, seed=1))[None, None].float()


def direct_solution(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Laplace's equation in the hole, a mirror at the border of the image, by a sparse LU decomposition: (N, C)."""
    height, width = missing.shape
    number = np.full(missing.shape, -1)
    number[missing] = np.arange(missing.sum())
    rows, columns, entries = [], [], []
    right = np.zeros((missing.sum(), values.shape[2]))
    for y, x in zip(*np.nonzero(missing), strict=True):
        row = number[y, x]
        rows.append(row), columns.append(row), entries.append(4.0)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            there = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
            if missing[there]:
                rows.append(row), columns.append(number[there]), entries.append(-1.0)
            else:
                right[row] += values[there]
    return spsolve(coo_matrix((entries, (rows, columns))).tocsr(), right)


@pytest.mark.parametrize("kind", ["random_walk", "brush", "box"])
@pytest.mark.parametrize("size", [(64, 64), (45, 71), (8, 96)])
def test_many_sweeps_end_in_the_direct_solution_and_the_usual_number_comes_near_it(kind, size):
    image, known = tensors(*size, kind)
    pixels, missing = image[0].permute(1, 2, 0).double().numpy(), known[0, 0].numpy() == 0
    expected = direct_solution(pixels, missing)

    def error(**options) -> np.ndarray:
        return harmonic_extension(image, known, **options)[0].permute(1, 2, 0).numpy()[missing] - expected

    assert np.abs(error(sweeps=2000)).max() < 1e-3
    assert np.sqrt((error() ** 2).mean()) < 0.02


@pytest.mark.parametrize("side", [256, 171, 43])
def test_a_ramp_is_continued_through_a_box_far_from_the_origin(side):
    """What is linear is harmonic; a start that is shifted at odd sizes would show here."""
    down = torch.linspace(0, 1, side)[:, None].expand(side, side)
    image, known = torch.stack([down, down.T])[None], torch.ones(1, 1, side, side)
    known[..., side // 2 : -side // 8, side // 2 : -side // 8] = 0
    assert (harmonic_extension(image, known) - image).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(1, 16), (16, 1)])
def test_on_a_line_it_is_linear_interpolation(shape):
    values, known = torch.rand(1, 1, *shape), torch.ones(1, 1, *shape)
    known.view(-1)[5:9] = 0
    expected = np.interp(np.arange(16), np.flatnonzero(known), values.flatten()[known.flatten() > 0])
    assert np.allclose(harmonic_extension(values, known, sweeps=500).flatten(), expected, atol=1e-5)


def test_known_pixels_are_kept_bit_for_bit_and_hidden_ones_have_no_influence():
    image, known = tensors(48, 40, "brush")
    fill = torch.rand_like(image)
    where = known.bool().expand_as(image)
    blended = poisson_composite(fill, image, known)
    assert torch.equal(blended[where], image[where])
    assert blended.min() >= 0 and blended.max() <= 1
    assert torch.equal(blended, poisson_composite(fill, torch.where(where, image, float("nan")), known))


def test_a_fill_that_is_off_by_a_constant_colour_is_put_right():
    image, known = tensors(64, 64, "box")
    image = 0.3 + 0.4 * image
    offset = torch.tensor([0.2, -0.1, 0.05])[None, :, None, None]
    assert torch.allclose(poisson_composite(image + offset, image, known), image, atol=1e-5)


def test_images_of_a_batch_do_not_mix():
    image, known = tensors(32, 32, "random_walk")
    other, other_known = tensors(32, 32, "box", 0.2)
    together = harmonic_extension(torch.cat([image, other * 0.5]), torch.cat([known, other_known]))
    assert torch.equal(together[:1], harmonic_extension(image, known))
    assert torch.equal(together[1:], harmonic_extension(other * 0.5, other_known))


def test_all_known_and_nothing_known():
    image, known = tensors(24, 32, "box")
    fill = torch.rand_like(image)
    assert torch.equal(poisson_composite(fill, image, torch.ones_like(known)), image)
    assert torch.equal(poisson_composite(fill, image, torch.zeros_like(known)), fill)
    assert harmonic_extension(image, torch.zeros_like(known)).abs().max() == 0


def test_half_precision_fills_leave_the_known_pixels_in_float32():
    image, known = tensors(32, 32, "brush")
    where = known.bool().expand_as(image)
    with torch.autocast("cpu", torch.bfloat16):
        blended = poisson_composite(torch.rand_like(image).bfloat16(), image, known)
    assert blended.dtype == torch.float32 and torch.equal(blended[where], image[where])

"""`inpaint_steps`: every stage as soon as it is computed, and in the end what `inpaint` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_pixels

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.filling import STEP_PARTS
from hvq_inpaint.visualize import STAGE_NAMES


@pytest.fixture
def pixels() -> np.ndarray:
    return make_pixels(64, 400)


@pytest.fixture
def mask() -> np.ndarray:
    """Two holes, far enough from each other for a crop each at a working size of 64; the second one is larger."""
    mask = np.zeros((64, 400), dtype=bool)
    mask[20:30, 20:30] = True
    mask[20:40, 340:365] = True
    return mask


def steps_of(model: HVQInpainter, *arguments: Any, **options: Any) -> list[tuple[Any, Any]]:
    """Every step with its result, asked for in time."""
    return [(step, step.result()) for step in model.inpaint_steps(*arguments, **options)]


def test_the_stages_come_in_the_order_of_the_pipeline(model: HVQInpainter, pixels: np.ndarray) -> None:
    mask = np.zeros((64, 400), dtype=bool)
    mask[20:40, 20:50] = True
    steps = steps_of(model, pixels, mask, strategy="original")
    assert [step.part for step, _ in steps] == list(STEP_PARTS)
    assert [(step.done, step.total) for step, _ in steps] == [(1, 3), (2, 3), (3, 3)]
    encoded = {"damaged", "global_codes", "credibility"}
    decoded = encoded | {"local_codes", "coarse"}
    assert [set(result.stages) for _, result in steps] == [encoded, decoded, set(STAGE_NAMES)]
    assert [len(result.images) for _, result in steps] == [0, 0, 1]
    assert steps[0][1].main_crop.local_codes is None


@pytest.mark.parametrize("output_type", ["pil", "numpy", "torch"])
def test_the_last_step_has_what_inpaint_gives(
    model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray, output_type: str
) -> None:
    options = {"seed": 3, "num_results": 2, "strategy": "crop", "working_size": 64, "dilate": 1, "feather": 2}
    whole = model.inpaint(pixels, mask, output_type=output_type, **options)
    steps = steps_of(model, pixels, mask, output_type=output_type, **options)
    last = steps[-1][1]
    assert len(whole.crops) == 2 and steps[-1][0].done == steps[-1][0].total == len(steps) == 2 * (1 + 2 * 2)
    for image, same in zip(whole.images, last.images, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(same))
    for name in STAGE_NAMES:
        assert np.array_equal(np.asarray(whole.stages[name]), np.asarray(last.stages[name])), name
    assert last.main_crop.box == whole.main_crop.box


def test_the_maps_are_those_of_the_largest_hole(model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray) -> None:
    steps = steps_of(model, pixels, mask, strategy="crop", working_size=64)
    first, last = steps[0][1], steps[-1][1]
    assert first.main_crop is first.crops[0] and last.main_crop is last.crops[1]
    for name in ("global_codes", "local_codes", "credibility"):
        assert last.stages[name] is getattr(last.main_crop, name)
    left, _, right, _ = last.main_crop.box
    assert left <= 340 and right >= 365


def test_what_is_not_filled_yet_shows_the_photograph(model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray) -> None:
    steps = steps_of(model, pixels, mask, strategy="crop", working_size=64)
    composite = np.asarray(steps[2][1].stages["composite"])
    assert not np.array_equal(composite[20:30, 20:30], pixels[20:30, 20:30])
    assert np.array_equal(composite[:, 200:], pixels[:, 200:])
    assert steps[2][1].images == []


def test_unusable_input_is_refused_at_once(model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray) -> None:
    for arguments, options in (
        ((pixels, mask[:, :10]), {}),
        ((pixels, mask), {"strategy": "none"}),
        ((pixels, mask, -1), {}),
    ):
        with pytest.raises(InvalidInputError):
            model.inpaint_steps(*arguments, **options)


def test_no_gradient_is_kept(model: HVQInpainter, pixels: np.ndarray, mask: np.ndarray) -> None:
    for step in model.inpaint_steps(pixels, mask, output_type="torch"):
        assert torch.is_grad_enabled()
        assert not any(image.requires_grad for image in step.result().images)

"""What is announced of a fill and when, and when exactly it is stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.demo.fills import Filler, Options, Progress, hole_of
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.demo.stages import STAGES_OF_PART

ENCODED, DECODED, REFINED = (set(STAGES_OF_PART[part]) for part in ("encoder", "decoder", "refiner"))


@pytest.fixture
def photograph() -> Image.Image:
    return Image.fromarray(make_pixels(24, 1400))


@pytest.fixture
def mask() -> np.ndarray:
    """One hole."""
    mask = np.zeros((24, 1400), dtype=bool)
    mask[8:16, 20:40] = True
    return mask


@pytest.fixture
def two_holes(mask: np.ndarray) -> np.ndarray:
    """A second hole, the larger one, too far off for one crop."""
    mask = mask.copy()
    mask[4:20, 1340:1380] = True
    return mask


def fill(
    model: HVQInpainter, photograph: Any, mask: Any, limits: Limits | None = None, **options: Any
) -> list[Progress]:
    return list(Filler({"only": model}, limits or Limits()).run(photograph, mask, Options("only", **options)))


def set_clock(monkeypatch: pytest.MonkeyPatch, times: Iterable[float]) -> None:
    """The looks at the clock, in order; a further look fails."""
    monkeypatch.setattr("hvq_inpaint.demo.fills.time.monotonic", iter(times).__next__)


# ---------------------------------------------------------------- progress


def test_each_step_announces_the_stages_that_it_brings(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    seen = fill(model, photograph, mask)
    assert [(progress.done, progress.total, progress.finished) for progress in seen] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]
    assert [set(progress.changed) for progress in seen] == [ENCODED, DECODED, REFINED]
    assert all(progress.changed == tuple(sorted(progress.changed)) for progress in seen)


def test_further_results_change_no_stage(model: HVQInpainter, photograph: Image.Image, mask: np.ndarray) -> None:
    seen = fill(model, photograph, mask, num_results=3)
    assert [(progress.done, set(progress.changed)) for progress in seen] == [
        (1, ENCODED),
        (2, DECODED),
        (3, REFINED),
        (7, set()),
    ]
    assert [len(progress.result.images) for progress in seen] == [0, 0, 1, 3]


def test_a_larger_hole_brings_maps_of_its_own(
    model: HVQInpainter, photograph: Image.Image, two_holes: np.ndarray
) -> None:
    """Whoever shows just what is announced shows in the end what there is."""
    shown: dict[str, np.ndarray] = {}
    filler = Filler({"only": model})
    boxes = []
    for progress in filler.run(photograph, two_holes, Options("only", strategy="crop")):
        boxes.append(progress.result.main_crop.box)
        for name in progress.changed:
            shown[name] = np.array(progress.result.stages[name])
        for name, value in progress.result.stages.items():
            assert np.array_equal(shown[name], value), (progress.done, name)
    assert progress.finished and progress.total == 6 and len(set(boxes)) == 2


def test_the_last_progress_of_several_parts_has_what_inpaint_gives(
    model: HVQInpainter, photograph: Image.Image, two_holes: np.ndarray
) -> None:
    expected = model.inpaint(photograph, two_holes, seed=7, num_results=2, dilate=1, strategy="crop")
    last = fill(model, photograph, two_holes, seed=7, num_results=2, dilate=1, strategy="crop")[-1]
    assert all(map(np.array_equal, last.result.images, expected.images)) and len(last.result.images) == 2
    assert set(last.result.stages) == set(expected.stages)
    for name in expected.stages:
        assert np.array_equal(last.result.stages[name], expected.stages[name]), name


@pytest.mark.parametrize(
    "option", [{"strategy": "resize"}, {"dilate": 2}, {"feather": 3}, {"seed": 4, "num_results": 2}]
)
def test_each_option_reaches_the_model(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, option: dict[str, Any]
) -> None:
    plain = {"num_results": option["num_results"]} if "num_results" in option else {}
    results, others = (fill(model, photograph, mask, **options)[-1].result.images for options in (option, plain))
    assert all(map(np.array_equal, results, model.inpaint(photograph, mask, **option).images))
    assert not all(map(np.array_equal, results, others))


def test_a_file_and_its_transparency_can_be_filled(model: HVQInpainter, tmp_path: Path) -> None:
    pixels, alpha = make_pixels(32, 40), np.full((32, 40, 1), 255, dtype=np.uint8)
    alpha[8:16, 10:20] = 0
    path = tmp_path / "holes.png"
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(path)
    image = np.asarray(fill(model, str(path), None)[-1].result.image)
    known = alpha[..., 0] == 255
    assert np.array_equal(image[known][:, :3], pixels[known]) and (image[..., 3] == 255).all()


def test_what_can_not_be_filled_is_refused(model: HVQInpainter, photograph: Image.Image, mask: np.ndarray) -> None:
    for marks, options in (
        (mask[:, 1:], {}),
        (np.zeros_like(mask), {}),
        (None, {}),
        (mask, {"strategy": "none"}),
        (mask, {"num_results": 0}),
        (mask, {"seed": -1}),
    ):
        with pytest.raises(InvalidInputError):
            fill(model, photograph, marks, **options)


def test_a_dropped_fill_does_no_further_work(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("encode", "refine"):
        method = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda *inputs, name=name, method=method: calls.append(name) or method(*inputs)
        )
    run = Filler({"only": model}).run(photograph, mask, Options("only", num_results=4))
    assert calls == []
    next(run)
    assert calls == ["encode"]
    next(run)
    run.close()
    assert calls == ["encode"] and list(run) == []


# ---------------------------------------------------------------- time


def test_seconds_count_from_the_beginning(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At first, then for each step as it is done and once it was shown.
    set_clock(monkeypatch, [1000.0, 1002.0, 1003.0, 1005.0, 1006.0, 1009.5, 1010.0])
    assert [progress.seconds for progress in fill(model, photograph, mask)] == [2.0, 5.0, 9.5]


def test_a_fill_may_take_as_long_as_the_limit(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, [1000.0, 1000.0, 1000.0, 1010.0, 1010.0, 1010.0, 1010.0])
    assert fill(model, photograph, mask, Limits(seconds=10))[-1].finished


def test_a_fill_is_stopped_at_the_first_step_beyond_the_limit(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, [1000.0, 1001.0, 1001.0, 1010.25])
    refined: list[Any] = []
    monkeypatch.setattr(model, "refine", refined.append)
    run = Filler({"only": model}, Limits(seconds=10.0)).run(photograph, mask, Options("only"))
    assert next(run).done == 1
    with pytest.raises(InvalidInputError) as stopped:
        next(run)
    assert str(stopped.value) == (
        "The fill was stopped after 10 seconds, the limit of this page: mark less, ask for fewer results, or take a "
        "smaller photograph."
    )
    assert refined == []


def test_a_fill_that_is_finished_is_shown_however_long_it_took(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, [0.0, 1.0, 1.0, 2.0, 2.0, 99.0, 99.0])
    last = fill(model, photograph, mask, Limits(seconds=10))[-1]
    assert last.finished and last.seconds == 99 and len(last.result.images) == 1


# ---------------------------------------------------------------- models and holes


@pytest.mark.parametrize("name", ["", "Only", "only ", "../only", "user/name"])
def test_a_model_that_is_not_in_the_list_is_named(model: HVQInpainter, name: str) -> None:
    filler = Filler({"only": model, "other": model})
    with pytest.raises(InvalidInputError) as refused:
        filler.num_codes(name)
    assert str(refused.value) == f"There is no model {name!r} here; choose one of only, other."


def test_the_hole_that_is_measured_is_the_one_that_is_filled(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    for dilate, feather in ((0, 0), (3, 0), (0, 2), (3, 2)):
        options = Options("only", dilate=dilate, feather=feather)
        rows, columns = np.mgrid[0:24, 0:1400]
        outside = np.hypot(
            np.maximum(0, np.maximum(8 - rows, rows - 15)), np.maximum(0, np.maximum(20 - columns, columns - 39))
        )
        hole = hole_of(mask, options)
        assert np.array_equal(hole, outside <= dilate + feather)
        result = fill(model, photograph, mask, dilate=dilate, feather=feather)[-1].result
        assert not np.asarray(result.stages["damaged"])[hole].any()
        assert np.array_equal(np.asarray(result.image)[~hole], np.asarray(photograph)[~hole])

"""The models of a page, and a fill step by step and within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import make_model, make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.demo.fills import Filler, Options, hole_of
from hvq_inpaint.demo.limits import Limits
from hvq_inpaint.visualize import STAGE_NAMES


@pytest.fixture
def photograph() -> Image.Image:
    return Image.fromarray(make_pixels(64, 400))


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((64, 400), dtype=bool)
    mask[20:40, 100:130] = True
    return mask


class Clock:
    """Stands in for `time`: every look at it is `step` seconds after the last one."""

    def __init__(self, step: float) -> None:
        self.step, self.now = step, 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def test_the_last_progress_has_what_inpaint_gives(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    options = Options("only", num_results=2, seed=5, dilate=2, feather=3, strategy="resize")
    seen = list(Filler({"only": model}).run(photograph, mask, options))
    expected = model.inpaint(photograph, mask, 5, 2, dilate=2, feather=3, strategy="resize")
    assert [progress.finished for progress in seen] == [False] * (len(seen) - 1) + [True]
    assert all(map(np.array_equal, seen[-1].result.images, expected.images))
    assert seen[-1].done == seen[-1].total == 5 and seen[-1].seconds > 0


def test_every_stage_is_announced_once_it_is_there(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    seen = list(Filler({"only": model}).run(photograph, mask, Options("only")))
    announced: set[str] = set()
    for progress in seen:
        announced |= set(progress.changed)
        assert set(progress.changed) <= set(progress.result.stages)
    assert announced == set(STAGE_NAMES) and len(seen) == 3


def test_a_fill_of_many_parts_is_not_shown_at_every_step(model: HVQInpainter, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph = Image.fromarray(make_pixels(600, 600))
    mask = np.zeros((600, 600), dtype=bool)
    mask[20:590:140, 20:590:140] = True
    filler = Filler({"only": model})
    shown = {}
    for step in (0.001, 0.3):
        monkeypatch.setattr("hvq_inpaint.demo.fills.time", Clock(step))
        seen = list(filler.run(photograph, mask, Options("only", strategy="crop")))
        assert seen[-1].finished and seen[-1].total > 9
        assert set(STAGE_NAMES) == {name for progress in seen for name in progress.changed}
        shown[step] = len(seen)
    assert shown[0.001] == 2 < shown[0.3]


def test_a_fill_that_takes_too_long_is_stopped(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hvq_inpaint.demo.fills.time", Clock(10.0))
    filler = Filler({"only": model}, Limits(seconds=25))
    with pytest.raises(InvalidInputError, match=r"^The fill was stopped after 25 seconds, the limit of this page"):
        list(filler.run(photograph, mask, Options("only", num_results=4)))


def test_dropping_the_fill_cancels_it(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    refined: list[Any] = []
    refine = model.refine
    monkeypatch.setattr(model, "refine", lambda *arguments: refined.append(1) or refine(*arguments))
    fill: Iterator[Any] = Filler({"only": model}).run(photograph, mask, Options("only", num_results=4))
    while not next(fill).result.images:
        pass
    fill.close()
    assert len(refined) == 1


def test_only_the_models_of_the_page_can_be_used(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    filler = Filler({"first": model, "second": make_model(1)})
    for name in ("hub/model", "user/name", "../first", ""):
        with pytest.raises(InvalidInputError, match=r"^There is no model .* here; choose one of first, second\.$"):
            list(filler.run(photograph, mask, Options(name)))
    results = [list(filler.run(photograph, mask, Options(name)))[-1].result.image for name in filler.models]
    assert not np.array_equal(*results)
    assert filler.num_codes("first") == model.config.num_codes


def test_the_hole_grows_as_the_options_say(mask: np.ndarray) -> None:
    assert hole_of(mask, Options("only")).sum() == mask.sum()
    grown = hole_of(mask, Options("only", dilate=1, feather=2))
    assert grown[:, 97:133].any(axis=0).all() and grown[20:40, 97:133].all() and not grown[:, :97].any()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["megapixels", "seconds", "queue"])
def test_limits_are_more_than_nothing(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"^The limit {name} must be a finite number above 0"):
        Limits(**{name: value})


def test_limits_of_size_file_and_strategy() -> None:
    limits = Limits(megapixels=3)
    limits.check_size(2000, 1500)
    with pytest.raises(InvalidInputError, match=r"^The photograph has 3\.0 megapixels, and this page takes up to 3"):
        limits.check_size(2001, 1500)
    assert limits.file_bytes > 3e6 * 4  # the editor sends RGBA, which noise does not let pack
    limits.check_strategy("original", 2000, 1000)
    limits.check_strategy("auto", 2000, 1500)
    with pytest.raises(InvalidInputError, match=r"^The strategy original takes photographs of up to 2 megapixels"):
        limits.check_strategy("original", 2000, 1001)

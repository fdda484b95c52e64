"""The models of a page and a fill by one of them: what is filled, what is announced of it, and when it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_holes, make_model, make_pixels
from PIL import Image

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.demo.fills import Filler, Options, Progress, hole_of
from hvq_inpaint.demo.limits import Limits

ENCODED = ("credibility", "damaged", "global_codes")
DECODED = ("coarse", "local_codes")
REFINED = ("composite", "refined")


@pytest.fixture
def photograph() -> Image.Image:
    """Low and very wide: holes far from each other get a crop each, and each crop is soon filled."""
    return Image.fromarray(make_pixels(24, 1400))


@pytest.fixture
def mask() -> np.ndarray:
    return make_holes(24, 1400, np.s_[8:16, 20:40])


@pytest.fixture
def two_holes() -> np.ndarray:
    """The second one is larger."""
    return make_holes(24, 1400, np.s_[8:16, 20:40], np.s_[4:20, 1340:1380])


def fill(
    model: HVQInpainter, photograph: Any, mask: Any, limits: Limits | None = None, **options: Any
) -> list[Progress]:
    return list(Filler({"only": model}, limits or Limits()).run(photograph, mask, Options("only", **options)))


def watch(model: HVQInpainter, photograph: Any, mask: Any, **options: Any) -> list[Progress]:
    """The same, before the eyes of someone who shows just what is announced, and has at any time what there is."""
    shown: dict[str, np.ndarray] = {}
    seen = []
    for progress in Filler({"only": model}).run(photograph, mask, Options("only", **options)):
        stages = progress.result.stages
        shown |= {name: np.array(stages[name]) for name in progress.changed}
        assert set(shown) == set(stages)
        assert all(np.array_equal(shown[name], stages[name]) for name in stages)
        seen.append(progress)
    return seen


def set_clock(monkeypatch: pytest.MonkeyPatch, times: Iterable[float]) -> None:
    """What the looks at the clock show, in order; a further look fails. The first one is at the beginning, and then
    there are two for each step that is shown: when it is done and once it was shown."""
    monkeypatch.setattr("hvq_inpaint.demo.fills.time.monotonic", iter(times).__next__)


# ---------------------------------------------------------------- what is filled


def test_the_last_progress_has_what_inpaint_gives(
    model: HVQInpainter, photograph: Image.Image, two_holes: np.ndarray
) -> None:
    options = {"seed": 7, "num_results": 2, "dilate": 1, "feather": 2, "strategy": "crop"}
    expected = model.inpaint(photograph, two_holes, **options)
    *before, last = fill(model, photograph, two_holes, **options)
    assert last.finished and last.done == last.total == 10 and not any(progress.finished for progress in before)
    assert len(last.result.images) == 2 and all(map(np.array_equal, last.result.images, expected.images))
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


def test_the_hole_that_is_measured_is_the_one_that_is_filled(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    rows, columns = np.mgrid[0:24, 0:1400]
    outside = np.hypot(
        np.maximum(0, np.maximum(8 - rows, rows - 15)), np.maximum(0, np.maximum(20 - columns, columns - 39))
    )
    for dilate, feather in ((0, 0), (3, 0), (0, 2), (3, 2)):
        hole = hole_of(mask, Options("only", dilate=dilate, feather=feather))
        assert np.array_equal(hole, outside <= dilate + feather)
        result = fill(model, photograph, mask, dilate=dilate, feather=feather)[-1].result
        assert not np.asarray(result.stages["damaged"])[hole].any()
        assert np.array_equal(np.asarray(result.image)[~hole], np.asarray(photograph)[~hole])


def test_a_file_and_its_transparency_can_be_filled(model: HVQInpainter, tmp_path: Path) -> None:
    pixels, hole = make_pixels(32, 40), make_holes(32, 40, np.s_[8:16, 10:20])
    image = Image.fromarray(pixels)
    image.putalpha(Image.fromarray(~hole))
    image.save(tmp_path / "holes.png")
    filled = np.asarray(fill(model, str(tmp_path / "holes.png"), None)[-1].result.image)
    assert np.array_equal(filled[~hole][:, :3], pixels[~hole]) and (filled[..., 3] == 255).all()


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


# ---------------------------------------------------------------- models


def test_each_model_fills_by_its_name(model: HVQInpainter, photograph: Image.Image, mask: np.ndarray) -> None:
    models = {"first": model, "second": make_model(1, num_codes=16)}
    filler = Filler(models)
    results = [list(filler.run(photograph, mask, Options(name)))[-1].result.image for name in models]
    assert all(map(np.array_equal, results, [each.inpaint(photograph, mask).image for each in models.values()]))
    assert not np.array_equal(*results)
    assert [filler.num_codes(name) for name in models] == [model.config.num_codes, 16]


@pytest.mark.parametrize("name", ["", "First", "first ", "../first", "user/name", "hub/model"])
def test_a_model_that_is_not_in_the_list_is_refused(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, name: str
) -> None:
    filler = Filler({"first": model, "second": model})
    for use in (filler.num_codes, lambda name: list(filler.run(photograph, mask, Options(name)))):
        with pytest.raises(InvalidInputError) as refused:
            use(name)
        assert str(refused.value) == f"There is no model {name!r} here; choose one of first, second."


# ---------------------------------------------------------------- what is announced


def test_each_step_announces_the_stages_that_it_brings(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray
) -> None:
    seen = watch(model, photograph, mask)
    assert [(progress.done, progress.total, progress.finished) for progress in seen] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]
    assert [progress.changed for progress in seen] == [ENCODED, DECODED, REFINED]


def test_further_results_change_no_stage(model: HVQInpainter, photograph: Image.Image, mask: np.ndarray) -> None:
    seen = watch(model, photograph, mask, num_results=3)
    assert [(progress.done, progress.changed) for progress in seen] == [
        (1, ENCODED),
        (2, DECODED),
        (3, REFINED),
        (7, ()),
    ]
    assert [len(progress.result.images) for progress in seen] == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("second", "later"),
    [
        pytest.param(np.s_[8:14, 1350:1360], [(), ("coarse",), REFINED], id="smaller"),
        pytest.param(
            np.s_[4:20, 1340:1380], [(), ("coarse", "credibility", "global_codes", "local_codes"), REFINED], id="larger"
        ),
    ],
)
def test_only_what_a_second_hole_changes_is_announced(
    model: HVQInpainter,
    photograph: Image.Image,
    mask: np.ndarray,
    second: tuple[slice, slice],
    later: list[tuple[str, ...]],
) -> None:
    """The maps are those of the largest hole."""
    mask[second] = True
    seen = watch(model, photograph, mask, strategy="crop")
    assert [progress.changed for progress in seen] == [ENCODED, DECODED, REFINED, *later]


@pytest.mark.parametrize(
    ("parts", "step", "shown"),
    [
        (3, 0.001, list(range(1, 10))),
        (4, 0.001, [1, 12]),
        (4, 0.3, [1, 3, 5, 7, 9, 11, 12]),  # a look at the clock after each step and each progress: 0.6 s between them
        (4, 1.0, list(range(1, 13))),
    ],
)
def test_a_fill_of_many_parts_is_shown_every_half_second(
    model: HVQInpainter, monkeypatch: pytest.MonkeyPatch, parts: int, step: float, shown: list[int]
) -> None:
    width = 400 * parts
    mask = make_holes(16, width, *(np.s_[4:12, left : left + 20] for left in range(190, width, 400)))
    set_clock(monkeypatch, count(0, step))
    seen = watch(model, Image.fromarray(make_pixels(16, width)), mask, strategy="crop")
    assert [progress.done for progress in seen] == shown and seen[-1].total == 3 * parts


# ---------------------------------------------------------------- when it is stopped


def test_seconds_count_from_the_beginning(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_nothing_is_computed_before_it_is_asked_for_or_once_the_fill_is_dropped(
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
    for expected in (["encode"], ["encode"], ["encode", "refine"]):
        next(run)
        assert calls == expected
    run.close()
    assert calls == ["encode", "refine"] and list(run) == []


def test_two_fills_take_one_step_at_a_time(
    model: HVQInpainter, photograph: Image.Image, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, begun, go_on = model.encode, threading.Event(), threading.Event()
    running: list[str] = []
    most: list[int] = []

    def wait(*inputs: Any) -> Any:
        running.append("a step")
        most.append(len(running))
        begun.set()
        assert go_on.wait(60)
        running.pop()
        return encode(*inputs)

    monkeypatch.setattr(model, "encode", wait)
    filler = Filler({"only": model})
    threads = [
        threading.Thread(target=lambda: next(filler.run(photograph, mask, Options("only"))), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    threads[0].join(0.2)  # time for the others to begin, if they could
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert most == [1, 1, 1]


def test_a_large_fill_can_be_stopped_between_two_tiles(model: HVQInpainter, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, mask = make_pixels(900, 900), make_holes(900, 900, np.s_[100:800, 100:800])
    refined: list[str] = []
    refiner = model.refiner.forward
    monkeypatch.setattr(model.refiner, "forward", lambda *inputs: refined.append("once") or refiner(*inputs))
    steps = [(step.part, step.done) for step in model.inpaint_steps(pixels, mask)]
    assert steps == [("encoder", 1), ("decoder", 2), *[("tile", 2)] * 4, ("refiner", 3)] and len(refined) == 5
    refined.clear()
    # At first, as the encoder and the decoder are done and shown, and for two tiles, the second of them too late.
    set_clock(monkeypatch, [0.0, 1.0, 1.0, 2.0, 2.0, 9.0, 11.0])
    with pytest.raises(InvalidInputError, match="stopped after 10 seconds"):
        fill(model, pixels, mask, Limits(seconds=10))
    assert len(refined) == 3

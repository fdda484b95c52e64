"""The versions of a photograph that is filled again and again: which one is in the editor, and what is forgotten."""

from __future__ import annotations

import pytest

from hvq_inpaint.demo.history import MOST_VERSIONS, History


def history_of(length: int) -> History:
    """The original, "0", and what was made of it one after the other, `length` versions in all."""
    history = History()
    for number in range(1, length):
        history = history.sent_back(str(number - 1), str(number))
    return history


def test_nothing_was_sent_back_yet() -> None:
    history = History()
    assert history.current is None and not history.can_undo and not history.can_redo and history.captioned() == []
    assert history.moved_to(3) == history


def test_the_first_result_sent_back_brings_the_original_with_it() -> None:
    history = History().sent_back("original", "once")
    assert history.versions == ("original", "once") and history.current == "once"
    assert history.can_undo and not history.can_redo


@pytest.mark.parametrize(
    ("position", "captions"),
    [
        (0, ["Original (in the editor)", "Version 1", "Version 2"]),
        (1, ["Original", "Version 1 (in the editor)", "Version 2"]),
        (2, ["Original", "Version 1", "Version 2 (in the editor)"]),
    ],
)
def test_the_caption_tells_which_version_is_in_the_editor(position: int, captions: list[str]) -> None:
    assert history_of(3).moved_to(position).captioned() == list(zip(("0", "1", "2"), captions, strict=True))


@pytest.mark.parametrize(
    ("position", "reached"), [(-100, 0), (-1, 0), (0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (10**9, 3)]
)
def test_a_move_goes_to_the_nearest_version(position: int, reached: int) -> None:
    history = history_of(4)
    moved = history.moved_to(position)
    assert moved == History(history.versions, reached) and moved.current == str(reached)
    assert (moved.can_undo, moved.can_redo) == (reached > 0, reached < 3)
    assert moved.moved_to(3) == history


@pytest.mark.parametrize(("position", "kept"), [(0, ("0",)), (2, ("0", "1", "2")), (4, ("0", "1", "2", "3", "4"))])
def test_only_what_was_undone_is_forgotten_once_something_new_is_made(position: int, kept: tuple[str, ...]) -> None:
    history = history_of(5).moved_to(position).sent_back(str(position), "new")
    assert history.versions == (*kept, "new")
    assert history.current == "new" and not history.can_redo


def test_of_too_many_versions_the_original_and_the_latest_are_kept() -> None:
    full = history_of(MOST_VERSIONS)
    assert full.versions == tuple(map(str, range(MOST_VERSIONS)))
    more = full.sent_back(full.current, "new")
    assert more.versions == ("0", *full.versions[2:], "new")
    assert more.current == "new" and more.position == MOST_VERSIONS - 1


def test_a_full_history_can_be_undone_to_the_original() -> None:
    history = history_of(3 * MOST_VERSIONS)
    assert len(history.versions) == MOST_VERSIONS
    for _ in range(MOST_VERSIONS - 1):
        assert history.can_undo
        history = history.moved_to(history.position - 1)
    assert history.current == "0" and not history.can_undo


def test_a_step_leaves_the_history_before_it_as_it_was() -> None:
    history = history_of(3)
    history.moved_to(0)
    history.sent_back("2", "3")
    assert history == history_of(3)

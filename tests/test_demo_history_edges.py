"""Versions of a photograph: which one is in the editor, and what is forgotten."""

from __future__ import annotations

import pytest

from hvq_inpaint.demo.history import MOST_VERSIONS, History


def history_of(length: int) -> History:
    """The original and further versions, `length` in all."""
    history = History()
    for number in range(1, length):
        history = history.sent_back(str(number - 1), str(number))
    return history


@pytest.mark.parametrize("position", [0, 1, 2])
def test_the_caption_tells_which_version_is_in_the_editor(position: int) -> None:
    captions = [caption for _, caption in history_of(3).moved_to(position).captioned()]
    expected = ["Original", "Version 1", "Version 2"]
    expected[position] += " (in the editor)"
    assert captions == expected


@pytest.mark.parametrize(
    ("position", "reached"), [(-100, 0), (-1, 0), (0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (10**9, 3)]
)
def test_a_move_goes_to_the_nearest_version(position: int, reached: int) -> None:
    history = history_of(4)
    moved = history.moved_to(position)
    assert moved.position == reached and moved.current == str(reached) and moved.versions == history.versions
    assert (moved.can_undo, moved.can_redo) == (reached > 0, reached < 3)


def test_only_what_was_undone_is_forgotten() -> None:
    history = history_of(5).moved_to(2).sent_back("2", "other")
    assert history.versions == ("0", "1", "2", "other")
    assert history.current == "other" and not history.can_redo


def test_nothing_is_forgotten_up_to_the_most() -> None:
    full = history_of(MOST_VERSIONS)
    assert full.versions == tuple(str(number) for number in range(MOST_VERSIONS))
    more = full.sent_back(full.current, "new")
    assert more.versions == ("0", *full.versions[2:], "new")
    assert more.current == "new" and more.position == MOST_VERSIONS - 1


def test_a_full_history_can_be_undone_to_the_original() -> None:
    history = history_of(MOST_VERSIONS * 3)
    for _ in range(MOST_VERSIONS):
        history = history.moved_to(history.position - 1)
    assert history.current == "0" and not history.can_undo


def test_a_step_leaves_the_history_before_it_as_it_was() -> None:
    history = history_of(3)
    history.moved_to(0)
    history.sent_back("2", "3")
    assert history == history_of(3)

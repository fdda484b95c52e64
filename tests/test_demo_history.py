"""The versions of a photograph that is filled again and again."""

from __future__ import annotations

from hvq_inpaint.demo.history import MOST_VERSIONS, History


def test_nothing_was_sent_back_yet() -> None:
    history = History()
    assert history.current is None and not history.can_undo and not history.can_redo and history.captioned() == []
    assert history.moved_to(3) == history


def test_the_first_result_sent_back_brings_the_original_with_it() -> None:
    history = History().sent_back("original", "once")
    assert history.versions == ("original", "once") and history.current == "once"
    assert history.can_undo and not history.can_redo
    assert history.captioned() == [("original", "Original"), ("once", "Version 1 (in the editor)")]


def test_undo_and_redo_stop_at_the_ends() -> None:
    history = History().sent_back("original", "once").sent_back("once", "twice")
    back = history.moved_to(1).moved_to(0).moved_to(-1)
    assert back.current == "original" and not back.can_undo and back.can_redo
    assert back.moved_to(1).moved_to(2).moved_to(3) == history


def test_what_was_undone_is_gone_once_something_new_is_made() -> None:
    history = History().sent_back("original", "once").sent_back("once", "twice").moved_to(0)
    assert history.sent_back("original", "other").versions == ("original", "other")


def test_the_original_and_the_latest_versions_are_kept() -> None:
    history = History()
    for number in range(40):
        history = history.sent_back(str(number), str(number + 1))
    assert len(history.versions) == MOST_VERSIONS
    assert history.versions[0] == "0" and history.versions[-1] == "40" and history.current == "40"

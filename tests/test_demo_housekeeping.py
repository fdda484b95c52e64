"""Files of visitors do not grow old."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hvq_inpaint.demo import housekeeping, visitors_folder
from hvq_inpaint.demo.housekeeping import sweep


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a picture")
    return path


def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    nested, plain = make(tmp_path / "a" / "b" / "one.png"), make(tmp_path / "two.png")
    os.utime(nested, (0, 0))  # a copy has the age of its original, and came here just now
    sweep(tmp_path, kept=60)
    assert nested.is_file() and plain.is_file()
    sweep(tmp_path, kept=-60)
    assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


def test_a_file_that_comes_or_goes_meanwhile_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, kept = make(tmp_path / "a" / "gone.png"), make(tmp_path / "a" / "kept.png")
    unlink = Path.unlink

    def unlink_and_more(path: Path) -> None:
        if path == kept:
            make(tmp_path / "a" / "new.png")
        unlink(path)
        if path == gone:
            unlink(path)  # as if someone else had deleted it first

    monkeypatch.setattr(Path, "unlink", unlink_and_more)
    sweep(tmp_path, kept=-60)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new.png"]


def test_visitors_have_a_folder_of_their_own_and_only_while_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "operator"))
    others = make(tmp_path / "operator" / "others.png")
    with visitors_folder() as folder:
        assert folder.parent == tmp_path / "operator" and os.environ["GRADIO_TEMP_DIR"] == str(folder)
        make(folder / "photograph.png")
    assert not folder.exists() and others.is_file()
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path / "operator")
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    with pytest.raises(KeyboardInterrupt), visitors_folder() as folder:
        raise KeyboardInterrupt
    assert not folder.exists() and "GRADIO_TEMP_DIR" not in os.environ


def test_it_is_swept_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    swept, enough = [], threading.Event()

    def note(folder: Path, kept: float) -> None:
        swept.append((folder, kept))
        if len(swept) == 3:
            enough.set()

    monkeypatch.setattr(housekeeping, "sweep", note)
    with visitors_folder(kept=7, every=0.001) as folder:
        assert enough.wait(60)
    assert set(swept) == {(folder, 7)}
    assert not any("sweep" in thread.name for thread in threading.enumerate())  # nothing goes on after that

"""The files of visitors: a folder of their own, in which nothing grows old."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT_SECONDS = 3600.0
_SWEPT_EVERY = 600.0
_VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio keeps what it is sent and what it shows


@contextmanager
def visitors_folder(kept: float = KEPT_SECONDS, every: float = _SWEPT_EVERY) -> Iterator[Path]:
    """A folder for all that visitors send and get, for a page that is built and served meanwhile.

    It lies in `GRADIO_TEMP_DIR`, or else among the system's temporary files, and is gone in the end. Until then it is
    swept every `every` seconds of files older than `kept` seconds. Gradio's own `delete_cache` is not used: it does not
    know files that came before a restart or from a component that was updated, and ends for good with an error when a
    file comes while it looks for old ones.
    """
    outer = os.environ.get(_VARIABLE)
    if outer is not None:
        Path(outer).mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="hvq-inpaint-", dir=outer, ignore_cleanup_errors=True) as name:
        folder = Path(name)

        def sweep_again_and_again() -> None:
            while not ended.wait(every):
                sweep(folder, kept)

        os.environ[_VARIABLE] = name
        thread = threading.Thread(target=sweep_again_and_again, name="sweep", daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            ended.set()
            thread.join()
            if outer is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = outer


def sweep(folder: Path, kept: float) -> None:
    """Delete the files below `folder` that came there more than `kept` seconds ago, and folders left empty as long."""
    oldest = time.time() - kept
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(parent, name)
            try:
                if path.lstat().st_ctime < oldest:  # copies keep the time at which their original was changed
                    path.unlink()
            except FileNotFoundError:
                pass  # a temporary file that is gone already
        for name in folders:
            path = Path(parent, name)
            try:
                if path.lstat().st_ctime < oldest:
                    path.rmdir()
            except OSError:
                pass  # not empty, or gone

"""What was measured, batch by batch, kept on the disk: so a broken-off evaluation goes on where it stood.

Each batch of images is one file, complete or absent. The batches are the same whichever process measures them, and they
are summarised in their order: so the figures do not depend on the number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError

SETTINGS_FILE = "settings.json"

# The arrays of one batch by their names.
Record = dict[str, np.ndarray]


class RecordFolder(MutableMapping[int, Record]):
    """The records of an evaluation by the number of their batch, as .npz files in a folder.

    Args:
        folder: made with the first record.
        settings: all that decides the figures, as plain values; kept beside the records.

    Raises:
        InvalidInputError: the folder holds records made with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        if not (folder / SETTINGS_FILE).is_file():
            return
        before = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        if changed := sorted(
            name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name)
        ):
            raise InvalidInputError(
                f"{folder} holds an unfinished evaluation with other settings ({', '.join(changed)}): "
                "--overwrite discards it, another --out keeps it."
            )

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def __setitem__(self, number: int, record: Record) -> None:
        if not (self.folder / SETTINGS_FILE).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            # Several processes may come here at once, with the same text under names of their own.
            partial = self.folder / f"{SETTINGS_FILE}.{number}.partial"
            partial.write_text(json.dumps(self.settings, indent=2), encoding="utf-8")
            partial.replace(self.folder / SETTINGS_FILE)
        partial = self._path(number).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **record)
        partial.replace(self._path(number))

    def __getitem__(self, number: int) -> Record:
        if not self._path(number).is_file():
            raise KeyError(number)
        with np.load(self._path(number), allow_pickle=False) as arrays:
            return dict(arrays)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self._path(number).is_file()

    def __delitem__(self, number: int) -> None:
        self._path(number).unlink()

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(int(path.stem) for path in self.folder.glob("[0-9]*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

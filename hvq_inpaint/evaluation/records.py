"""What was measured, batch by batch, kept on the disk: so a broken-off evaluation goes on where it stood.

Each record is one file, complete or absent. Records are the same whichever process makes them, and they are summarised
in one order: so the figures do not depend on the number of processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError

SETTINGS_FILE = "settings.json"

# What a folder of records may hold.
_OWN_FILE = re.compile(r"settings\.json|[0-9a-z-]+\.npz|.*\.partial")

# Arrays by their names.
Record = dict[str, np.ndarray]


def check_settings(file: Path, settings: dict[str, Any], what: str) -> None:
    """Refuse to go on with something that was begun with other settings; nothing to say where it was not begun.

    Args:
        file: where `write_settings` put the settings.
        what: is begun, in words.
    """
    if not file.is_file():
        return
    before, now = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(settings))
    if changed := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        raise InvalidInputError(f"{file.parent} holds {what} with other settings ({', '.join(changed)})")


def write_settings(file: Path, settings: dict[str, Any], writer: str = "") -> None:
    """Write settings, whole or not at all; several processes may do so at once under a `writer` of their own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}{writer}.partial")
    partial.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    partial.replace(file)


class RecordFolder(MutableMapping[str, Record]):
    """The records of an evaluation by their names, as .npz files in a folder.

    Args:
        folder: made with the first record.
        settings: all that decides the figures, as plain values; kept beside the records.

    Raises:
        InvalidInputError: the folder holds records made with other settings, or something else.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        check_own_folder(folder)
        try:
            check_settings(folder / SETTINGS_FILE, settings, "an unfinished evaluation")
        except InvalidInputError as error:
            raise InvalidInputError(f"{error}: --overwrite discards it, another --out keeps it.") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def __setitem__(self, name: str, record: Record) -> None:
        if not (self.folder / SETTINGS_FILE).is_file():
            write_settings(self.folder / SETTINGS_FILE, self.settings, f".{name}")
        partial = self._path(name).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **record)
        partial.replace(self._path(name))

    def __getitem__(self, name: str) -> Record:
        if not self._path(name).is_file():
            raise KeyError(name)
        with np.load(self._path(name), allow_pickle=False) as arrays:
            return dict(arrays)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._path(name).is_file()

    def __delitem__(self, name: str) -> None:
        self._path(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self.folder.glob("*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def check_own_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but records."""
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder} is a file, and its name is needed for a folder: choose another --out.")
    others = [path.name for path in folder.glob("*") if not _OWN_FILE.fullmatch(path.name) or path.is_dir()]
    if others:
        raise InvalidInputError(
            f"{folder} is needed for records and holds something else ({sorted(others)[0]}): choose another --out."
        )


def discard_records(folder: Path) -> None:
    """Delete a folder of records, its settings first: what is left then is no unfinished evaluation any more."""
    if not folder.exists():
        return
    check_own_folder(folder)
    (folder / SETTINGS_FILE).unlink(missing_ok=True)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

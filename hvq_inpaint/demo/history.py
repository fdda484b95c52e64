"""The versions of a photograph that is filled, sent back to the editor and filled again."""

from __future__ import annotations

from dataclasses import dataclass

MOST_VERSIONS = 12  # the original and the latest ones


@dataclass(frozen=True)
class History:
    """Files of the versions so far, the oldest first, and which one is in the editor."""

    versions: tuple[str, ...] = ()
    position: int = 0

    def sent_back(self, before: str, after: str) -> History:
        """`after`, made of the version `before` in the editor, is now there; what had been undone is gone."""
        original, *later = (*(self.versions[: self.position + 1] or (before,)), after)
        versions = (original, *later[-(MOST_VERSIONS - 1) :])
        return History(versions, len(versions) - 1)

    def moved_to(self, position: int) -> History:
        """Another version in the editor: to the nearest one that there is."""
        return History(self.versions, max(0, min(position, len(self.versions) - 1)))

    @property
    def current(self) -> str | None:
        """The version in the editor; None if nothing was ever sent back."""
        return self.versions[self.position] if self.versions else None

    @property
    def can_undo(self) -> bool:
        return self.position > 0

    @property
    def can_redo(self) -> bool:
        return self.position < len(self.versions) - 1

    def captioned(self) -> list[tuple[str, str]]:
        """Every version with what it is called."""
        captions = []
        for number, version in enumerate(self.versions):
            name = "Original" if number == 0 else f"Version {number}"
            captions.append((version, f"{name} (in the editor)" if number == self.position else name))
        return captions

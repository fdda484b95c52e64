"""Images that can't be used: named, counted, passed over up to a limit."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from .together import together

UNREADABLE_FILE = "unreadable.txt"


class UnreadableImages:
    """The images of a stage that could not be used, each counted once, however often it is met.

    Args:
        folder: of the stage; unreadable.txt in it has a line for each. A run that is continued counts anew: they may
            have been mended.
        limit: more than so many end the run.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, limit: int) -> None:
        self.accelerator, self.limit, self.path = accelerator, limit, folder / UNREADABLE_FILE
        self.reasons: dict[str, str] = {}
        if accelerator.is_main_process:
            self.path.unlink(missing_ok=True)

    def note(self, unreadable: dict[str, str]) -> int:
        """Take account of those that were met; all processes call it together, those that met none as well.

        Args:
            unreadable: reasons by names.

        Returns:
            How many there are by now.
        """
        met = dict(pair for of_process in gather_object([unreadable]) for pair in of_process.items())
        fresh = {name: " ".join(reason.split()) for name, reason in met.items() if name not in self.reasons}
        self.reasons.update(fresh)
        with together():
            if self.accelerator.is_main_process and fresh:
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{' '.join(name.split())}\t{reason}\n" for name, reason in fresh.items())
        for reason in fresh.values():
            self.accelerator.print(f"An image is left out: {reason}")
        return len(self.reasons)

    def problem(self) -> str | None:
        """A sentence, once there are more than the limit."""
        if len(self.reasons) <= self.limit:
            return None
        return (
            f"{len(self.reasons)} images can't be used ({self.path} names them), more than --unreadable-limit "
            f"{self.limit}: mend or remove them, or allow more, and continue with --resume auto."
        )

"""A run is stopped between two steps: by a signal, with a checkpoint, or because its loss is ruined."""

from __future__ import annotations

import math
import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(Exception):
    """A signal stopped the run, after a checkpoint was written.

    Attributes:
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopRequest:
    """While it is entered, SIGTERM and SIGINT are remembered in `signal_number` and no longer end the process; the
    second SIGINT interrupts as ever.

    The end of the `accelerate launch` that started this process counts as SIGTERM: with one process it does not pass
    the signal on.
    """

    def __init__(self) -> None:
        self._received = 0
        self._before: dict[int, Any] = {}
        # Others outlive the shell that started them, under nohup, and shall.
        self._launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    @property
    def signal_number(self) -> int:
        """The signal that asked to stop, 0 as long as none did."""
        if not self._received and self._launcher not in (None, os.getppid()):
            return signal.SIGTERM
        return self._received

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one set handlers
            self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number


def leave_signals_to_the_run(worker: int) -> None:
    """For a process that loads data: Ctrl+C and a scheduler's SIGTERM reach it too, but the run needs it for its last
    step, and ends it; by a second SIGTERM if it has to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@dataclass(frozen=True)
class LossLevel:
    """How high a loss was: its moving average over so many steps, and the lowest that this was."""

    steps: int = 0
    average: float = 0.0
    lowest: float | None = None


class DivergenceWatch:
    """Tells when a loss is no longer finite, or has risen for good.

    Args:
        factor: the loss diverges when its moving average exceeds so many times the lowest that it had; 0: never.
        window: steps over which it is averaged; the first so many are not judged.
    """

    def __init__(self, factor: float, window: int = 50) -> None:
        self.factor, self.window = factor, window
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: from here on the loss is another one."""
        self.seen = LossLevel()

    def problem(self, loss: float) -> str | None:
        """What is wrong with the loss of one more step, None if nothing is."""
        if not math.isfinite(loss):
            return "is not finite"
        steps = self.seen.steps + 1
        average = self.seen.average + (loss - self.seen.average) / min(steps, self.window)
        lowest = self.seen.lowest
        if steps >= self.window and (lowest is None or average < lowest):
            lowest = average
        self.seen = LossLevel(steps, average, lowest)
        if self.factor and lowest is not None and average > self.factor * lowest:
            return f"is on average {average / lowest:.1f} times its lowest"
        return None

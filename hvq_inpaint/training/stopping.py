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
    """How high a loss was: its moving average over so many steps, the lowest that this was, and how long ago."""

    steps: int = 0
    average: float = 0.0
    lowest: float | None = None
    steps_since_lowest: int = 0


class DivergenceWatch:
    """Tells when a loss or its gradient is no longer finite, or the loss has risen for good.

    Args:
        factor: the loss diverges when its moving average exceeds so many times the lowest that it had; 0: never.
        skipped: so many gradients in a row may be infinite: the scaler of fp16 skips their steps, and tries half its
            scale in the next one.
        window: steps over which the loss is averaged; the first so many are not judged.

    Attributes:
        seen: how high the loss was so far.
        has_risen: whether the last problem was that of a loss that has risen.
    """

    def __init__(self, factor: float, skipped: int = 0, window: int = 50) -> None:
        self.factor, self.skipped, self.window = factor, skipped, window
        self.has_risen, self._infinite = False, 0
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: from here on the loss is another one."""
        self.seen = LossLevel()

    def problem(self, loss: float, gradient_norm: float) -> str | None:
        """What is wrong with the loss of one more step, None if nothing is."""
        if not math.isfinite(loss):
            return "is not finite"
        self._infinite = 0 if math.isfinite(gradient_norm) else self._infinite + 1
        if self._infinite > self.skipped:
            in_a_row = f", as those of the {self.skipped} steps before it" if self.skipped else ""
            return f"has a gradient that is not finite{in_a_row}"
        steps = self.seen.steps + 1
        average = self.seen.average + (loss - self.seen.average) / min(steps, self.window)
        lowest, since_lowest = self.seen.lowest, self.seen.steps_since_lowest + 1
        if steps >= self.window and (lowest is None or average < lowest):
            lowest, since_lowest = average, 0
        self.seen = LossLevel(steps, average, lowest, since_lowest)
        self.has_risen = bool(self.factor) and lowest is not None and average > self.factor * lowest
        if self.has_risen:
            return f"is on average {average / lowest:.1f} times its lowest"
        return None

"""The models of a page, shared by all visitors, and a fill by one of them, step by step and within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InvalidInputError
from ..filling import InpaintResult
from ..hole import grow
from ..inpainter import HVQInpainter
from .limits import Limits
from .stages import STAGES_OF_PART

# A fill of many parts is shown again only after so many seconds: pictures of large photographs take time too.
_SHOWN_EVERY = 0.5

# Stages that do not grow as one part of a photograph after the other is worked on.
_SHOWN_ONCE = ("damaged", "global_codes", "credibility", "local_codes")


@dataclass(frozen=True)
class Options:
    """How a photograph is to be filled; `HVQInpainter.inpaint` says what each means."""

    model: str  # one of the names that the operator gave
    num_results: int = 1
    seed: int = 0
    dilate: int = 0
    feather: int = 0
    strategy: str = "auto"


@dataclass(frozen=True)
class Progress:
    """What there is of a fill by now."""

    done: int  # steps
    total: int
    seconds: float  # since the fill began
    changed: tuple[str, ...]  # stages that are new, or new in part
    result: InpaintResult

    @property
    def finished(self) -> bool:
        return self.done == self.total


@dataclass(frozen=True)
class Filler:
    """Models by the names that visitors choose from."""

    models: Mapping[str, HVQInpainter]
    limits: Limits = field(default_factory=Limits)
    # One step at a time. A queue of one is not enough: it counts a fill as gone as soon as it is cancelled, while the
    # step that it was at still goes on.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def num_codes(self, model: str) -> int:
        """K, the size of its codebooks."""
        return self._model(model).config.num_codes

    def run(self, photograph: Image.Image | str, mask: Any, options: Options) -> Iterator[Progress]:
        """Fill `mask` of a photograph; the last progress is finished. Dropping the iterator cancels the fill.

        Args:
            photograph: an image, or the path of one, of any size and mode.
            mask: as for `inpaint`, or None: what is transparent.

        Raises:
            InvalidInputError: the photograph or an option can't be used, or the fill took longer than is allowed.
        """
        start = time.monotonic()
        model = self._model(options.model)
        steps = model.inpaint_steps(
            photograph,
            mask,
            options.seed,
            options.num_results,
            strategy=options.strategy,
            dilate=options.dilate,
            feather=options.feather,
        )
        parts: set[str] = set()  # of the network, done since the last progress
        shown: dict[str, Any] = {}  # what the visitor has of the stages that are not new with every step
        shown_at = None
        while True:
            with self._turn:
                step = next(steps, None)
            if step is None:
                return
            if step.number == 0 and step.part in STAGES_OF_PART:
                parts.add(step.part)
            now = time.monotonic()
            finished = step.done == step.total
            if not finished and now - start > self.limits.seconds:
                raise InvalidInputError(
                    f"The fill was stopped after {self.limits.seconds:g} seconds, the limit of this page: mark less, "
                    "ask for fewer results, or take a smaller photograph."
                )
            if finished or (parts and (shown_at is None or step.total <= 9 or now - shown_at > _SHOWN_EVERY)):
                result = step.result()
                yield Progress(step.done, step.total, now - start, _changed(result, parts, shown), result)
                parts, shown_at = set(), time.monotonic()

    def _model(self, name: str) -> HVQInpainter:
        if name not in self.models:
            raise InvalidInputError(f"There is no model {name!r} here; choose one of {', '.join(self.models)}.")
        return self.models[name]


def _changed(result: InpaintResult, parts: set[str], shown: dict[str, Any]) -> tuple[str, ...]:
    """The stages that are new, or new in part; `shown` is brought up to date."""
    changed = [name for part in parts for name in STAGES_OF_PART[part] if name not in _SHOWN_ONCE]
    for name in _SHOWN_ONCE:
        # The maps are others once a larger hole than before is worked on.
        now = True if name == "damaged" else result.stages.get(name)
        if now is not None and shown.get(name) is not now:
            changed.append(name)
            shown[name] = now
    return tuple(sorted(changed))


def hole_of(mask: np.ndarray, options: Options) -> np.ndarray:
    """The pixels that a fill replaces: `mask` (H, W), grown as the options say."""
    return grow(mask, options.dilate + options.feather)

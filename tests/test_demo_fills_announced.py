"""A stage is announced when it has changed, and only then: what was shown already is not sent again."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_pixels

from hvq_inpaint import HVQInpainter
from hvq_inpaint.demo.fills import Filler, Options

FIRST = [("credibility", "damaged", "global_codes"), ("coarse", "local_codes"), ("composite", "refined")]


@pytest.mark.parametrize(
    ("second", "later"),
    [
        pytest.param(np.s_[8:14, 1350:1360], [(), ("coarse",), ("composite", "refined")], id="smaller"),
        pytest.param(
            np.s_[4:20, 1340:1380],
            [(), ("coarse", "credibility", "global_codes", "local_codes"), ("composite", "refined")],
            id="larger",
        ),
    ],
)
def test_only_what_a_second_hole_changes_is_announced(
    model: HVQInpainter, second: tuple[slice, slice], later: list[tuple[str, ...]]
) -> None:
    pixels, mask = make_pixels(24, 1400), np.zeros((24, 1400), dtype=bool)
    mask[8:16, 20:40] = mask[second] = True
    seen = Filler({"only": model}).run(pixels, mask, Options("only", strategy="crop"))
    assert [progress.changed for progress in seen] == FIRST + later

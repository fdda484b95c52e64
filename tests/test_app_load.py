"""The page under load; two minutes, run by hand with `pytest -m slow tests/test_app_load.py`."""

from __future__ import annotations

import pytest

from benchmarks.page_load import measure


@pytest.mark.slow
def test_twenty_clients_at_once_are_all_answered_or_told_that_the_queue_is_full() -> None:
    load = measure(clients=20, seconds=120)
    assert load.answered and not load.failures and not load.wrong
    _, *quarters, _ = load.memory
    assert quarters[-1] < quarters[0] * 1.1  # flat, once all that is kept is there

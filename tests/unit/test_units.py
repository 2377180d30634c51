"""Numbers as people read them, also those that no clock ever showed."""

from __future__ import annotations

import pytest

from kdumpy.units import human_time


@pytest.mark.parametrize(("seconds", "words"), [
    (None, ""), (0, "1970-01-01 00:00:00 UTC"), (1795458291, "2026-11-23 18:24:51 UTC"),
    (1 << 62, str(1 << 62)), (-(1 << 63), str(-(1 << 63))),
])
def test_a_time_is_a_date_in_utc_or_the_number(seconds: int | None, words: str) -> None:
    assert human_time(seconds) == words

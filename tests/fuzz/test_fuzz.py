"""The fuzz targets, a little of each at every test run, by hypothesis; `make fuzz` runs them for minutes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, ask_everything, changed, elf_file, kdump_file, stream_of
from kdumpy.dumpfile.bitmap import Bitmap
from kdumpy.dumpfile.opening import open_source
from kdumpy.dumpfile.source import BytesSource

BRIEF = {"elf-many": 3, "split": 25}
"""Examples of the targets that take long; 60 of the others."""
FIELDS = {"kdump": [*range(0, 12, 4), *range(402, 464, 4), *range(4096, 4096 + 104, 4)],
          "elf": range(0, 400, 4), "flattened": [*range(0, 40, 4), *range(4096, 4096 + 32, 4)]}
"""Offsets of the headers' fields."""
ALLOWED = 48 << 20
"""Bytes allocated at a time, at most, over dumps of 40 KB."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_answers(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds:
        target.run(seed)

    @settings(max_examples=BRIEF.get(name, 60), deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds), st.integers(0, 1 << 16), st.integers(0, 9), st.binary(max_size=60))
    def one(seed: bytes, at: int, keep: int, new: bytes) -> None:
        at %= len(seed) + 1
        target.run(seed[:at] + new + seed[at + keep:])
    one()


@pytest.mark.parametrize("base", ["kdump", "elf", "flattened"])
def test_no_field_makes_it_allocate_more_than_the_file_has(base: str) -> None:
    """Every 4 bytes of the headers, each claiming as much as it can."""
    made: dict[str, Callable[[], bytes]] = {"kdump": kdump_file, "elf": elf_file,
                                            "flattened": lambda: stream_of("kdump")}
    data = made[base]()
    worst = (0, 0)
    tracemalloc.start()
    try:
        for at in FIELDS[base]:
            for claim in (b"\xff\xff\xff\x7f", b"\0\0\0\x10"):
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                TARGETS["any"].run(data[:at] + claim + data[at + 4:])
                worst = max(worst, (tracemalloc.get_traced_memory()[1] - before, at))
    finally:
        tracemalloc.stop()
    assert worst[0] < ALLOWED, f"{worst[0]} bytes for the field at {worst[1]:#x}"


def test_the_targets_do_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged dump answers every question, and a changed page is another page."""
    with open_source(BytesSource(kdump_file())) as dump:
        ask_everything(dump)
        assert dump.pages_present == 7
    assert changed(b"abcdef", b"\2\0\0\1X") == b"abXdef"
    assert changed(b"abcdef", b"\3\0\0\xff") == b"abc"
    monkeypatch.setattr(Bitmap, "has", lambda self, bit: False)
    with pytest.raises(AssertionError):
        TARGETS["bitmap"].run(b"\0\0\x08\0\x0f")

"""The line of the log that tells why the kernel went down."""

from __future__ import annotations

import pytest

from kdumpy.crash.panicline import fatal_line, is_cause


def test_the_first_line_of_the_last_trouble_is_it() -> None:
    records = [
        (1.0, "Booting"),
        (5.0, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
        (5.1, "Oops: 0000 [#1]"),
        (90.0, "general protection fault, probably for non-canonical address 0x6b6b: 0000 [#2]"),
        (90.2, "Kernel panic - not syncing: Fatal exception\nsecond line"),
        (90.3, "---[ end ]---"),
    ]
    assert fatal_line(records).startswith("general protection fault")


def test_without_times_the_first_is_it() -> None:
    assert fatal_line([(-1.0, "sysrq: Trigger a crash"), (-1.0, "Kernel panic - not syncing: x")]) == \
        "sysrq: Trigger a crash"


def test_a_log_without_trouble_has_none() -> None:
    assert fatal_line([]) == ""
    assert fatal_line([(1.0, "usb 1-1: new device")]) == ""


@pytest.mark.parametrize("text", ["BUG: workqueue lockup - pool cpus=0", "BUG: scheduling while atomic: sh/1",
                                  "WARNING: CPU: 0 PID: 1 at kernel/x.c:1", "the BUG: is in the middle"])
def test_what_a_kernel_survives_is_no_cause(text: str) -> None:
    assert not is_cause(text)

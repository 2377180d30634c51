"""Which locks a function has, by its code: a way must lead from taking it to the place, past no giving back."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis.crashed.assembly import Line, line
from kdumpy.diagnosis.crashed.held import _leads
from kdumpy.diagnosis.waits.spinning import spinning_at
from kdumpy.kernel.values import Frame

TAKE, GIVE, PLACE = 0x10, 0x30, 0x50


def code(*instructions: tuple[int, int, str, str]) -> dict[int, Line]:
    return {address: line(address, size, name, text) for address, size, name, text in instructions}


STRAIGHT = code((0x10, 0x20, "callq", "0x1000"), (0x30, 0x20, "callq", "0x2000"), (0x50, 5, "callq", "0x3000"))
ERROR_PATH = code((0x10, 0x10, "callq", "0x1000"), (0x20, 0x10, "je", "0x50"), (0x30, 0x10, "callq", "0x2000"),
                  (0x40, 0x10, "retq", ""), (0x50, 5, "callq", "0x3000"))
LOOP = code((0x08, 8, "nop", ""), (0x10, 0x20, "callq", "0x1000"), (0x30, 0x10, "callq", "0x2000"),
            (0x40, 0x10, "jmp", "0x8"), (0x50, 5, "callq", "0x3000"))


@pytest.mark.parametrize(("instructions", "held"), [
    (STRAIGHT, False),              # taken, given back, and only then the call
    (ERROR_PATH, True),             # given back only on the way that returns
    (LOOP, False),                  # no way leads there
])
def test_a_way_that_gives_nothing_back(instructions: dict[int, Line], held: bool) -> None:
    assert _leads(instructions, TAKE, PLACE, {GIVE}) is held


def test_without_giving_back_the_straight_way_holds() -> None:
    assert _leads(STRAIGHT, TAKE, PLACE, set())


@pytest.mark.parametrize(("names", "at"), [
    (("native_queued_spin_lock_slowpath", "_raw_spin_lock", "f"), 0),
    (("crash_nmi_callback", "asm_exc_nmi", "__pv_queued_spin_lock_slowpath", "f"), 2),
    (("queued_write_lock_slowpath", "f"), 0),
    # A rwlock has a spinlock of its own, for those who wait behind a writer.
    (("native_queued_spin_lock_slowpath", "queued_read_lock_slowpath", "f"), 1),
    (("_raw_spin_trylock", "f"), None),
    (("_raw_spin_unlock_irqrestore", "f"), None),
    (("mutex_spin_on_owner", "__mutex_lock", "f"), None),
])
def test_the_frame_that_spins(names: tuple[str, ...], at: int | None) -> None:
    assert spinning_at([Frame(1, name, 0, None) for name in names]) == at


def test_a_modules_function_of_such_a_name_does_not_spin() -> None:
    assert spinning_at([Frame(1, "_raw_spin_lock", 0, "driver")]) is None

"""Rules of single causes, on stacks and logs made by hand."""

from __future__ import annotations

from typing import cast

import pytest

from kdumpy.debuginfo.modules import ModuleSymbols
from kdumpy.diagnosis import memory, owned
from kdumpy.diagnosis.causes.stack_overflow import _recurring
from kdumpy.diagnosis.model import Confidence, Culprit
from kdumpy.diagnosis.verdict import judge
from kdumpy.diagnosis.waiting import kind_of
from kdumpy.kernel import Kernel, Stack
from kdumpy.kernel.values import Frame
from unit.diagnosis import kernel_logs

DOUBLE_ADD = """\
[    7.700001] list_add double add: new=ffff888004a5c810, prev=ffff888004a5c810, next=ffff888004b1f0f0.
[    7.700002] ------------[ cut here ]------------
[    7.700003] kernel BUG at lib/list_debug.c:33!
[    7.700004] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[    7.700005] CPU: 0 PID: 7 Comm: kworker/0:0 Kdump: loaded Tainted: G           OE      6.1.0 #1
[    7.700006] RIP: 0010:__list_add_valid.cold+0x23/0x5b
[    7.700007] Call Trace:
[    7.700008]  enqueue+0x33/0x50 [driver]
[    7.700009]  process_one_work+0x1c7/0x380
[    7.700010] ---[ end trace 0000000000000000 ]---
"""


@pytest.mark.parametrize(("text", "subtype", "title"), [
    (DOUBLE_ADD, "list_add-twice", "List entry added twice"),
    (DOUBLE_ADD.partition("\n")[2], "list_add", "Corrupted list"),     # the words before the BUG are lost
    (DOUBLE_ADD.replace("double add: new", "corruption. prev->next should be next"), "list_add", "Corrupted list"),
])
def test_the_checks_of_lists(text: str, subtype: str, title: str) -> None:
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.subtype) == ("list-corruption", subtype)
    assert judgement.finding.title == f"{title} in enqueue [driver]"


@pytest.mark.parametrize(("place", "confidence"), [
    ("RIP: 0010:usercopy_abort+0x6c/0x7e", Confidence.LIKELY),           # a check of the kernel, for anybody
    ("RIP: 0010:commit+0x6c/0x7e [driver]", Confidence.CERTAIN),
])
def test_a_check_that_serves_many_is_not_certain(place: str, confidence: Confidence) -> None:
    text = DOUBLE_ADD.partition("\n")[2].replace("lib/list_debug.c:33", "mm/usercopy.c:101") \
        .replace("RIP: 0010:__list_add_valid.cold+0x23/0x5b", place)
    judgement = judge(kernel_logs.crash(text))
    assert judgement is not None
    assert (judgement.cause, judgement.finding.confidence) == ("bug", confidence)


def stack(*names: str) -> tuple[Frame, ...]:
    return tuple(Frame(1, name, 0, None) for name in names)


def test_functions_that_call_each_other_have_one_name() -> None:
    turns = ["leaf", "tree"] * 20
    assert _recurring(stack(*turns, "tree"))[0] == _recurring(stack("leaf", *turns))[0] == "leaf"
    assert _recurring(stack(*["b"] * 9, *["a"] * 3)) == ("b", 9)
    assert _recurring(stack("b", "a"))[1] == 1
    assert _recurring(()) == (None, 0)


@pytest.mark.parametrize("function", ["flush_work", "__flush_work", "cancel_work_sync", "destroy_workqueue"])
def test_waiting_for_the_end_of_work(function: str) -> None:
    waiting = Stack(stack("__schedule", "schedule", "schedule_timeout", "__wait_for_common", function, "stop"))
    assert kind_of(waiting) == "work"


class Modules:
    """Two modules: a at 0x1000, b at 0x2000; their code is the first 0x100 bytes."""

    def module_at(self, address: int) -> str | None:
        return {1: "a", 2: "b"}.get(address >> 12)

    def __contains__(self, address: int) -> bool:
        return address & 0xFFF < 0x100


class FakeKernel:
    prog = None

    def __init__(self) -> None:
        self.debuginfo = self
        self.text = self.module_symbols = cast(ModuleSymbols, Modules())


@pytest.mark.parametrize(("registers", "found"), [
    ({"rbx": 0x1208, "r13": 0x1200}, "a_data"),
    ({"rbx": 0x1208, "rdi": 0x2200}, None),             # two modules: whose is it?
    ({"rbx": 0x1010, "rdi": 0x3000}, None),             # code, and no module at all
    ({"rip": 0x1208, "rsp": 0x1210}, None),
    ({}, None),
])
def test_the_variable_that_the_registers_lead_to(monkeypatch: pytest.MonkeyPatch, registers: dict[str, int],
                                                 found: str | None) -> None:
    monkeypatch.setattr(memory, "symbol_at", lambda prog, address: f"a_data+{address & 0xff:#x}")
    choice = owned.variable_of_a_module(cast(Kernel, FakeKernel()), registers)
    assert (choice.frame.symbol if choice.frame else None) == found
    if choice.frame:
        assert (choice.frame.module, choice.frame.offset, choice.frame.data) == ("a", 0, True)


def test_a_culprit_in_words() -> None:
    assert Culprit("f", "a", None).words == "f()"
    assert Culprit("", "a", None, variable="a_data").words == "the variable a_data"

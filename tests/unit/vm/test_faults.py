from __future__ import annotations

import re
import typing

import pytest

from kdumpy.vm import kernels, toolchain
from kdumpy.vm.faults import FAULTS, Fault, Method

# The causes of the diagnosis, and "none" for a guest that did not panic.
CAUSES = """sysrq null-dereference bad-address general-protection user-access jump-to-null nx-execute
    write-to-readonly use-after-free double-free list-corruption refcount bug warn divide-error invalid-opcode
    stack-overflow stack-corruption soft-lockup hard-lockup rcu-stall hung-task deadlock out-of-memory memory-leak
    machine-check nmi init-exit driver-panic no-root none""".split()  # noqa: SIM905

SOURCE = b"\n".join(toolchain.driver_source().values()).decode()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_says_what_it_does_and_what_must_be_found(fault: Fault) -> None:
    assert re.fullmatch(r"[a-z][a-z-]*", fault.name)
    assert fault.cause in CAUSES
    assert fault.method in typing.get_args(Method)
    assert fault.story.endswith(".")
    assert bool(fault.culprits) == (fault.module is not None)
    assert set(fault.kernels) <= set(kernels.LINES)
    assert bool(fault.symptoms) == (fault.method == "kdump")
    for pattern in fault.symptoms:
        re.compile(pattern)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_the_driver_knows_the_word_and_the_culprit(fault: Fault) -> None:
    for word in re.findall(r"echo (\S+) >/proc/flaky", fault.commands()):
        assert f'{{ "{word}", ' in SOURCE
    for culprit in fault.culprits:
        # Inlined, the culprit would not be a frame of its own; an operation is never inlined.
        assert re.search(rf"^(static noinline \w+ \**{culprit}|static int {culprit})\(", SOURCE, re.M) or \
            re.search(rf"^struct \w+ \*{culprit}\(", SOURCE, re.M), culprit


def test_every_word_of_the_driver_is_used_by_a_fault() -> None:
    words = set(re.findall(r'\{ "([a-z-]+)", flaky_', SOURCE))
    used = {word for fault in FAULTS.values() for word in re.findall(r"echo (\S+) >/proc/flaky", fault.commands())}
    assert words == used

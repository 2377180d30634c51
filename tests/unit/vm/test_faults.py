from __future__ import annotations

import re
import typing

import pytest

from kdumpy.vm import kernels, toolchain
from kdumpy.vm.faults import FAULTS, Fault, Method
from kdumpy.vm.laboratory import KNOWN
from kdumpy.vm.scoring import SCORING
from kdumpy.vm.scoring2 import SCORING_2
from kdumpy.vm.scoring3 import SCORING_3
from kdumpy.vm.scoring4 import SCORING_4
from kdumpy.vm.scoring5 import SCORING_5

# The causes of the diagnosis, and "none" for a guest that did not panic.
CAUSES = """sysrq null-dereference bad-address general-protection user-access jump-to-null nx-execute
    write-to-readonly use-after-free double-free list-corruption refcount bug warn divide-error invalid-opcode
    stack-overflow stack-corruption soft-lockup hard-lockup rcu-stall hung-task deadlock out-of-memory memory-leak
    machine-check nmi init-exit driver-panic no-root none""".split()  # noqa: SIM905

DRIVERS = sorted({fault.driver for fault in KNOWN.values()})
SOURCES = {name: b"\n".join(toolchain.driver_source(name).values()).decode() for name in DRIVERS}


def words_of(fault: Fault) -> list[str]:
    return re.findall(r"echo ([a-z]\S*) >/(?:proc/|dev/|sys/kernel/ferry/)\w+", fault.commands())


@pytest.mark.parametrize("fault", KNOWN.values(), ids=KNOWN.keys())
def test_a_fault_says_what_it_does_and_what_must_be_found(fault: Fault) -> None:
    assert re.fullmatch(r"[a-z][a-z-]*", fault.name)
    assert fault.cause in CAUSES
    assert fault.method in typing.get_args(Method)
    assert fault.story.endswith(".")
    assert fault.module in (None, fault.driver)
    assert not fault.culprits or fault.module
    assert set(fault.kernels) <= set(kernels.LINES)
    assert bool(fault.symptoms) == (fault.method == "kdump")
    for pattern in fault.symptoms:
        re.compile(pattern)


@pytest.mark.parametrize("fault", KNOWN.values(), ids=KNOWN.keys())
def test_the_driver_knows_the_word_and_the_culprit(fault: Fault) -> None:
    source = SOURCES[fault.driver]
    for word in words_of(fault):
        assert word == "c" or f'{{ "{word}", ' in source
    for culprit in fault.culprits:
        # Inlined, the culprit would not be a frame of its own; what is only pointed to is never inlined.
        alone = re.search(rf"^static noinline (?:struct )?\w+ \**{culprit}\(|^struct \w+ \*{culprit}\(", source, re.M)
        pointed_to = re.search(rf"= {culprit},|, {culprit}(\)|,| }})|\({culprit}\)", source)
        assert alone or pointed_to, culprit


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_word_of_a_driver_is_used_by_a_fault(driver: str) -> None:
    words = set(re.findall(rf'\{{ "([a-z-]+)", {driver}_', SOURCES[driver]))
    assert words or driver == "clog", "which does its harm by being loaded"
    assert words == {word for fault in KNOWN.values() if fault.driver == driver for word in words_of(fault)} - {"c"}


def test_the_scoring_drivers_are_others() -> None:
    """Not a name of the laboratory's driver is in them: a rule that was written after the one cannot know the other."""
    assert set(SCORING).isdisjoint(FAULTS)
    assert set(SCORING_2).isdisjoint(set(FAULTS) | set(SCORING))
    assert set(SCORING_3).isdisjoint(set(FAULTS) | set(SCORING) | set(SCORING_2))
    assert set(SCORING_4).isdisjoint(set(FAULTS) | set(SCORING) | set(SCORING_2) | set(SCORING_3))
    assert set(SCORING_5).isdisjoint(set(FAULTS) | set(SCORING) | set(SCORING_2) | set(SCORING_3) | set(SCORING_4))
    names = {driver: set(re.findall(rf"\b{driver}_(\w+)", source)) for driver, source in SOURCES.items()}
    assert names["sluice"] & names["flaky"] <= {"write", "init"}      # every driver has these
    assert names["ferry"] & (names["flaky"] | names["sluice"] | names["tardy"]) <= {"init"}
    others = names["flaky"] | names["sluice"] | names["tardy"] | names["ferry"]
    assert (names["vane"] | names["points"]) & others <= {"init"}
    others |= names["vane"] | names["points"]
    assert names["loom"].isdisjoint(others)
    assert names["hive"].isdisjoint(others | names["loom"])

"""The rest of the machine: checks whose findings stand beside the verdict. A new one is a row of a table.

A check says something only where something is so; one whose need the dump cannot meet is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import MachineFinding, Severity, Unchecked
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.findings import devices, files, hardware, log, machine, memory, network, storage, work
from kdumpy.diagnosis.findings.base import Check, Found, Machine
from kdumpy.diagnosis.steps import OutOfTime, Steps
from kdumpy.diagnosis.verdict import Judgement
from kdumpy.errors import NotInDump

CHECKS: tuple[Check, ...] = (*memory.CHECKS, *machine.CHECKS, *work.CHECKS, *hardware.CHECKS, *devices.CHECKS,
                              *storage.CHECKS, *files.CHECKS, *network.CHECKS, *log.CHECKS)
_MOST_OF_ONE = 8
_ORDER = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


def look_around(crash: Crash, account: MemoryAccount | None, steps: Steps | None = None,
                judgement: Judgement | None = None) -> tuple[tuple[MachineFinding, ...], tuple[Unchecked, ...]]:
    """Return what the checks found, the worst first, and the checks that could not be made.

    What the verdict itself is about is left out: it would stand there as further trouble.
    """
    steps = steps or Steps({})
    looked_at = Machine(crash, account, judgement)
    found: list[MachineFinding] = []
    unchecked: list[Unchecked] = []
    for check in CHECKS:
        try:
            if check.unless and any(item.check == check.unless for item in found):
                continue
            with steps.step():
                found += _look(crash, looked_at, check)
        except OutOfTime as error:
            steps.problems[f"the check of {check.name}"] = str(error)
            unchecked.append(Unchecked(check.name, str(error)))
        except Exception as error:          # a dump may be damaged anywhere; the other checks still answer
            unchecked.append(Unchecked(check.name, str(error) or type(error).__name__))
    return tuple(sorted(found, key=lambda item: _ORDER[item.severity])), tuple(unchecked)


def _look(crash: Crash, looked_at: Machine, check: Check) -> Iterator[MachineFinding]:
    """Yield what a check finds.

    Raises:
        NotInDump: the dump does not hold what it needs.
    """
    if check.only_if is not None and crash.kernel is not None and not check.only_if(looked_at):
        return
    lacking = next((why for need in check.needs if (why := looked_at.lacks(need))), "")
    if lacking:
        raise NotInDump(lacking)
    for item in islice(check.look(looked_at), _MOST_OF_ONE):
        if check.of_a_cpu and _cpu_of(item) in looked_at.blamed_cpus:
            continue
        yield MachineFinding(check.name, item.severity, item.title, item.detail,
                             crash.evidence.command(item.command) if item.command else "")


def _cpu_of(item: Found) -> int | None:
    """Return the CPU that a finding is about: the first that it names."""
    match = re.search(r"\bCPU (\d+)", f"{item.title} {item.detail}")
    return int(match[1]) if match else None

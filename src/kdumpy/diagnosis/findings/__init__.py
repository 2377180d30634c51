"""The rest of the machine: checks whose findings stand beside the verdict. A new one is a row of a table.

A check says something only where something is so; one whose need the dump cannot meet is not judged.
"""

from __future__ import annotations

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import MachineFinding, Severity, Unchecked
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.findings import devices, files, hardware, log, machine, memory, network, storage, work
from kdumpy.diagnosis.findings.base import Check, Machine

CHECKS: tuple[Check, ...] = (*memory.CHECKS, *machine.CHECKS, *work.CHECKS, *hardware.CHECKS, *devices.CHECKS,
                              *storage.CHECKS, *files.CHECKS, *network.CHECKS, *log.CHECKS)
_MOST_OF_ONE = 8
_ORDER = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


def look_around(crash: Crash,
                account: MemoryAccount | None) -> tuple[tuple[MachineFinding, ...], tuple[Unchecked, ...]]:
    """Return what the checks found, the worst first, and the checks that could not be made."""
    looked_at = Machine(crash, account)
    found: list[MachineFinding] = []
    unchecked: list[Unchecked] = []
    for check in CHECKS:
        try:
            if check.unless and any(item.check == check.unless for item in found):
                continue
            if check.only_if is not None and crash.kernel is not None and not check.only_if(looked_at):
                continue
            lacking = next((why for need in check.needs if (why := looked_at.lacks(need))), "")
            if lacking:
                unchecked.append(Unchecked(check.name, lacking))
                continue
            for number, item in enumerate(check.look(looked_at)):
                if number >= _MOST_OF_ONE:
                    break
                found.append(MachineFinding(check.name, item.severity, item.title, item.detail,
                                            crash.evidence.command(item.command) if item.command else ""))
        except Exception as error:          # a dump may be damaged anywhere; the other checks still answer
            unchecked.append(Unchecked(check.name, str(error) or type(error).__name__))
    return tuple(sorted(found, key=lambda item: _ORDER[item.severity])), tuple(unchecked)

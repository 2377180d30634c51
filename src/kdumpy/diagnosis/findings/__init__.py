"""The rest of the machine: checks whose findings stand beside the verdict. A new one is a row of a table.

A check says something only where something is so; one whose need the dump cannot meet is not judged.
"""

from __future__ import annotations

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.findings import MachineFinding, Severity, Unchecked
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.findings import hardware, log, machine, memory
from kdumpy.diagnosis.findings.base import Check, Machine

CHECKS: tuple[Check, ...] = (*memory.CHECKS, *machine.CHECKS, *hardware.CHECKS, *log.CHECKS)
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
            for number, item in enumerate(check.look(looked_at)):
                if number >= _MOST_OF_ONE:
                    break
                found.append(MachineFinding(check.name, item.severity, item.title, item.detail,
                                            crash.evidence.command(item.command) if item.command else ""))
        except Exception as error:          # a dump may be damaged anywhere; the other checks still answer
            unchecked.append(Unchecked(check.name, str(error) or type(error).__name__))
    return tuple(sorted(found, key=lambda item: _ORDER[item.severity])), tuple(unchecked)

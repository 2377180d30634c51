"""Errors of the hardware that the kernel survived, as it counted them itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis.crashed.machinecheck import UNCORRECTED, from_memory
from kdumpy.diagnosis.findings.base import CRITICAL, WARNING, Check, Found, Machine
from kdumpy.units import human_seconds

_KINDS = {"HWERR_RECOV_CPU": "the CPU", "HWERR_RECOV_MEMORY": "memory", "HWERR_RECOV_PCI": "PCI",
          "HWERR_RECOV_CXL": "CXL", "HWERR_RECOV_OTHERS": "other parts"}
_MOST_KINDS = 64


def recovered(machine: Machine) -> Iterator[Found]:
    """Errors that were recovered from, by the part of the machine (6.18 and later).

    Source: kernel/vmcore_info.c, hwerr_log_error_type(); 3fa805c37dd4 "vmcoreinfo: track and log recoverable
    hardware errors". Each kind has a count and the time of the last one, in seconds since 1970.
    """
    prog = machine.kernel.prog
    try:
        counts = prog["hwerr_data"]
        enumerators = prog.type("enum hwerr_error_type").enumerators or ()
    except READ_ERRORS:
        return                              # an older kernel does not count them
    names = {number: name for name, number in islice(enumerators, _MOST_KINDS)}
    ended = machine.kernel.system.panic_time
    parts = []
    for number in range(min(len(counts), _MOST_KINDS)):
        count, last = int(counts[number].count.counter), int(counts[number].timestamp)
        if count > 0:
            before = f", the last {human_seconds(ended - last)} before the end" if ended and 0 < last <= ended else ""
            kind = _KINDS.get(names.get(number, ""), names.get(number, f"kind {number}"))
            parts.append(f"{count} of {kind}{before}")
    if parts:
        yield Found(WARNING, "The kernel recovered from errors of the hardware", "; ".join(parts), "p hwerr_data")


def machine_checks(machine: Machine) -> Iterator[Found]:
    """What the banks of the processors said last, where that did not end the kernel."""
    errors = from_memory(machine.kernel)
    if errors and not machine.crash.in_stack("mce_panic"):
        worst = max(errors, key=lambda error: error.worst)
        yield Found(CRITICAL if worst.status & UNCORRECTED else WARNING,
                    f"CPU {worst.cpu} had reported a machine check (bank {worst.bank})", worst.words, "log")


CHECKS = (Check("recovered hardware errors", recovered), Check("machine checks", machine_checks))

"""From an opened dump, and its diagnosis, to the details."""

from __future__ import annotations

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.details import code, log, tasks
from kdumpy.diagnosis.details.model import Details, ModuleRow
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.dumpfile.base import Dump
from kdumpy.errors import KdumpyError
from kdumpy.kernel.kernel import Kernel


def gather(kernel: Kernel, diagnosis: Diagnosis) -> Details:
    """Return the details of a dump. What cannot be read is left out and named; nothing is raised for it."""
    missing: dict[str, str] = {}
    crash = Crash(kernel.path, kernel, kernel.log)
    rows, stacks = tasks.read(kernel, _now_ns(crash), missing)
    return Details(
        tasks=rows, stacks=stacks, log=log.read(kernel.log, crash), code=code.read(kernel, diagnosis, missing),
        registers=code.registers(kernel, diagnosis),
        modules=tuple(ModuleRow(item.name, item.base, item.size, item.taints, item.version, item.used_by, item.state)
                      for item in kernel.modules),
        missing=missing)


def gather_log(diagnosis: Diagnosis, dump: Dump) -> Details:
    """Return what the log alone gives, for a dump that cannot be opened further."""
    from pathlib import Path

    from kdumpy.dumpfile.dmesg import read_log

    try:
        records = read_log(dump).records
    except KdumpyError as error:
        return Details(missing={"log": str(error)})
    return Details(log=log.read(records, Crash(Path(diagnosis.dump.path), None, records)))


def _now_ns(crash: Crash) -> int | None:
    """Return the kernel's clock at the crash, in nanoseconds since boot: the log's last time."""
    now = max((second for second in crash.seconds if second is not None), default=None)
    return int(now * 1e9) if now is not None else None

"""From an opened dump, and its diagnosis, to the details."""

from __future__ import annotations

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.details import code, log, tasks
from kdumpy.diagnosis.details.model import Details, Log, ModuleRow, TaskRow
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.diagnosis.steps import EACH, Steps
from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.logrecord import LogRecord
from kdumpy.errors import KdumpyError
from kdumpy.kernel.kernel import Kernel


def gather(kernel: Kernel, diagnosis: Diagnosis, *, seconds: float = EACH) -> Details:
    """Return the details of a dump. What cannot be read is left out and named; nothing is raised for it.

    Args:
        kernel: the dump.
        diagnosis: its diagnosis.
        seconds: CPU time that each step may take, 0 for no bound.
    """
    missing: dict[str, str] = {}
    steps = Steps(missing, seconds)
    records: tuple[LogRecord, ...] = steps.get("log", lambda: kernel.log, ())
    crash = Crash(kernel.path, kernel, records)
    nobody: tuple[tuple[TaskRow, ...], tasks.Stacks] = ((), ())
    rows, stacks = steps.get("tasks", lambda: tasks.read(kernel, _now_ns(crash), missing), nobody)
    return Details(
        tasks=rows, stacks=stacks, log=steps.get("the story of the log", lambda: log.read(records, crash), Log()),
        code=steps.get("code", lambda: code.read(kernel, diagnosis, missing), ()),
        registers=steps.get("registers", lambda: code.registers(kernel, diagnosis), ()),
        modules=steps.get("modules", lambda: _modules(kernel), ()), missing=missing)


def _modules(kernel: Kernel) -> tuple[ModuleRow, ...]:
    return tuple(ModuleRow(item.name, item.base, item.size, item.taints, item.version, item.used_by, item.state)
                 for item in kernel.modules)


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

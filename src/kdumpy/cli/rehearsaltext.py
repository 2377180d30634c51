"""A rehearsal as text and as JSON, and its progress on a terminal."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdumpy.cli.rehearsalsubject import MIB, Found
from kdumpy.cli.rehearsing import Answer
from kdumpy.host import crashkernel
from kdumpy.host.cmdline import value_of
from kdumpy.units import human_bytes, printable
from kdumpy.vm import reservation
from kdumpy.vm.troubles import Stage

_WIDTH = 110

_STAGES = {Stage.BOOT: "boot the kernel", Stage.LOAD: "load the capture kernel", Stage.CRASH: "crash",
           Stage.START: "the capture kernel boots", Stage.LOG: "save the log", Stage.DUMP: "save the dump",
           Stage.END: "end"}

_OF_A_CPU = 512
"""Bytes of the dump's header for each CPU of the crashed kernel: a program header and a note with its registers,
rounded up. Source: struct elf64_phdr, struct elf_prstatus of x86-64."""


class _Terminal:
    """Shows the stage that is under way, and how long the ones before took."""

    def __init__(self) -> None:
        self._open: tuple[Stage, float] | None = None

    def stage(self, stage: Stage, seconds: float, text: str) -> None:
        """As rehearsal.Say."""
        if text:
            return
        self._close()
        self._open = stage, time.monotonic()
        print(f"  {_STAGES[stage]:26}", end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say something else in a line."""
        self._close()
        print(printable(text), file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._open is not None:
            print(f"{time.monotonic() - self._open[1]:6.1f} s", file=sys.stderr, flush=True)
            self._open = None


class _Silent:
    def stage(self, stage: Stage, seconds: float, text: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


def progress() -> _Terminal | _Silent:
    """Return who shows the progress: on standard error, where that is a terminal."""
    return _Terminal() if sys.stderr.isatty() else _Silent()


def as_json(found: Found, answer: Answer) -> dict[str, Any]:
    """Return everything as JSON values; sizes in bytes, times in seconds."""
    done, subject = answer.rehearsed, found.subject
    memory = done.memory
    return {
        "good": answer.good, "release": subject.release, "fault": subject.fault.name,
        "accelerator": answer.accelerator,
        "image": {"origin": found.origin, "path": str(subject.image) if found.origin == "host" else None},
        "target": {"filesystem": subject.disk.filesystem, "uuid": subject.disk.uuid, "bus": subject.disk.bus},
        "guest": {"memory": subject.memory_mib * MIB, "cpus": subject.cpus, "cmdline": subject.cmdline,
                  "capture_cmdline": subject.capture_cmdline},
        "crashkernel": answer.crashkernel,
        "phases": [{"stage": phase.stage.value, "seconds": round(phase.seconds, 2)} for phase in done.phases],
        "steps": list(done.steps),
        "trouble": None if done.trouble is None else
        {key: value for key, value in asdict(done.trouble).items() if key != "stage"} | {
            "stage": done.trouble.stage.value},
        "dump": None if answer.opened is None else {**asdict(answer.opened), "expected_cause": answer.expected},
        "memory": None if memory is None else {**asdict(memory), "used": memory.used, "kernel": memory.kernel,
                                               "capturing": memory.capturing, "unpacking": memory.unpacking},
        "need": answer.need, "smallest_safe_crashkernel": answer.smallest,
        "tries": [asdict(one) for one in answer.tries], "bisected_crashkernel": answer.bisected,
        "not_rehearsed": list(found.notes), "host": _host(found, answer),
    }


def render(found: Found, answer: Answer, *, kept: Path | None, recorded: str) -> str:
    """Return everything as text."""
    lines = [*_head(found, answer), "", *_phases(answer)]
    for part in (_memory(answer), _tries(answer), _host_lines(found, answer)):
        if part:
            lines += ["", *part]
    lines += ["", "Not as on a real machine"] + [f"  - {note}" for note in (*found.notes, *_always(found))]
    if recorded:
        lines += ["", f"kept for `kdumpy setup` and `kdumpy status` in {recorded}"]
    if kept is not None:
        lines += ["", f"the dump, the logs and the consoles are in {kept}"]
    elif not answer.good:
        lines += ["", "--keep DIR keeps both kernels' console, to be read"]
    return printable("\n".join(map(_wrapped, lines)) + "\n")


def _wrapped(line: str) -> str:
    """Break a long line; what follows stands under the text of its column, or of its list."""
    if len(line) <= _WIDTH:
        return line
    head = re.match(r" *(?:- |\S+ {2,})?", line)
    return textwrap.fill(line, _WIDTH, subsequent_indent=" " * (len(head[0]) if head else 0),
                         break_long_words=False, break_on_hyphens=False)


def _head(found: Found, answer: Answer) -> Iterator[str]:
    subject, done, opened = found.subject, answer.rehearsed, answer.opened
    how = "KVM" if answer.accelerator == "kvm" else "emulated"
    yield ("A whole dump arrived, with the right cause" if answer.good else
           "The dump arrived, and its cause is not the one that was brought about" if answer.arrived else
           f"No whole dump arrived: {done.trouble.what if done.trouble else 'it cannot be read whole'}")
    yield ""
    yield f"  {'kernel':12} {subject.release}, crashed by {subject.fault.name}"
    yield (f"  {'guest':12} {subject.memory_mib} MiB of memory, {subject.cpus} CPUs ({how}), "
           f"crashkernel={_mib(answer.crashkernel)}")
    image = "this host's own" if found.origin == "host" else "kdumpy's own, for a virtual disk"
    yield f"  {'image':12} {image}"
    if done.trouble is not None:
        yield f"  {'failed at':12} {_STAGES[done.trouble.stage]}"
        if done.trouble.why:
            yield f"  {'why':12} {done.trouble.why}"
        if done.trouble.mend:
            yield f"  {'mend':12} {done.trouble.mend}"
    if opened is not None:
        problems = f": {opened.problems}" if opened.problems else ""
        yield f"  {'dump':12} {opened.health}{problems}, {human_bytes(opened.bytes)}"
        if opened.cause or opened.title:
            wrong = "" if answer.right else f", not {answer.expected}"
            yield f"  {'report':12} {opened.cause or 'unknown'} ({opened.confidence}){wrong}: {opened.title}"
    saved = next((step for step in reversed(done.steps) if step.startswith("saved") and "log" not in step[:20]), "")
    if saved:
        yield f"  {'capture':12} {saved.partition('/vmcore: ')[2] or saved}"


def _phases(answer: Answer) -> Iterator[str]:
    yield f"Time ({'not that of real hardware: emulated' if answer.accelerator == 'tcg' else 'under KVM'})"
    for phase in answer.rehearsed.phases:
        yield f"  {_STAGES[phase.stage]:26}{phase.seconds:6.1f} s"
    capture = sum(phase.seconds for phase in answer.rehearsed.phases
                  if phase.stage in (Stage.START, Stage.LOG, Stage.DUMP, Stage.END))
    if answer.rehearsed.memory is not None:
        yield f"  {'from the capture kernel on':26}{capture:6.1f} s"


def _memory(answer: Answer) -> list[str]:
    memory = answer.rehearsed.memory
    if memory is None:
        return []
    rows = [
        ("reserved", memory.reserved, ""),
        ("the kernel's own", memory.kernel, "code, data, page tables: never free"),
        ("used at the peak", memory.used, f"of {human_bytes(memory.total)}; looked at ten times a second"),
        ("the capture program", memory.process, "its largest resident size"),
        ("the image", memory.image, f"{human_bytes(memory.unpacked)} unpacked"),
    ]
    lines = ["Memory of the capture kernel"]
    lines += [f"  {name:20} {human_bytes(size):>10}{f'   {more}' if more else ''}" for name, size, more in rows]
    if answer.need is None or answer.smallest is None:
        return lines
    why = "by trying" if answer.bisected else "to unpack the image" if memory.unpacking > memory.capturing \
        else "to save the dump"
    return [*lines, f"  {'needed':20} {human_bytes(answer.need):>10}   {why}",
            f"Smallest safe: crashkernel={_mib(answer.smallest)} ({reservation.MARGIN_SHARE} % and "
            f"{_mib(reservation.MARGIN)} more, rounded up to {_mib(reservation.STEP)})"]


def _tries(answer: Answer) -> list[str]:
    if not answer.tries:
        return []
    lines = ["Tried"]
    lines += [f"  crashkernel={_mib(one.crashkernel):8} {'saves a whole dump' if one.works else one.why}"
              for one in answer.tries]
    return lines


def _host(found: Found, answer: Answer) -> dict[str, Any]:
    """Return what this host's real memory and CPUs change."""
    machine = found.machine
    cpus = value_of(found.subject.capture_cmdline, "nr_cpus")
    advice = crashkernel.advise(machine, found.settings, answer.smallest) if machine.memory_bytes else None
    return {"memory": machine.memory_bytes, "cpus": machine.cpus, "virtualization": machine.virtualization,
            "capture_cpus": int(cpus) if cpus and cpus.isdigit() else machine.cpus,
            "cpu_headers": _OF_A_CPU * machine.cpus,
            "advice": advice.value if advice else None, "advice_why": advice.why if advice else None,
            "warnings": list(advice.warnings) if advice else []}


def _host_lines(found: Found, answer: Answer) -> list[str]:
    if found.subject.release != found.machine.release and not found.installed:
        return []
    host = _host(found, answer)
    where = "bare metal" if not host["virtualization"] else f"virtual, {host['virtualization']}"
    lines = [f"This host: {human_bytes(host['memory'])} of memory, {host['cpus']} CPUs ({where})",
             "  memory    the capture's need does not grow with it: pages are taken in turn, the list of them is "
             "kept packed (16 MiB at most). Its time and the dump's size grow with what is in memory: neither can be "
             "told from here"]
    if host["capture_cpus"] == 1:
        lines.append(f"  CPUs      the capture kernel starts one (nr_cpus=1); the registers of all {host['cpus']} take "
                     f"{human_bytes(host['cpu_headers'])}")
    else:
        lines.append(f"  CPUs      the capture kernel may start {host['capture_cpus']}: each takes memory of its own "
                     f"and 20 MiB in the capture; the guest had {found.subject.cpus}")
    lines.append("  drivers   what they take on real hardware (buffers of controllers and network cards, IOMMU) was "
                 "not measured")
    if host["advice"]:
        lines.append(f"Advice: {crashkernel.spelled(host['advice'])} ({host['advice_why']})")
        lines += [f"  - {warning}" for warning in host["warnings"]]
    return lines


def _always(found: Found) -> Iterator[str]:
    subject = found.subject
    yield (f"the machine: QEMU's, with a disk on {subject.disk.bus} ({subject.disk.filesystem}"
           f"{', with the same UUID as the target' if found.origin == 'host' else ''}); firmware, secure boot and "
           "watchdogs are not in it")
    yield "the crashed system: a kernel with a shell, so that the dump is smaller than a real one"


def _mib(size: int) -> str:
    return f"{size // MIB}M"

"""What `kdumpy rehearse` does: find out what is rehearsed, run it, open what arrived, keep what was measured."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdumpy.cli.rehearsalsubject import MIB, Found, subject_of
from kdumpy.errors import HostError, KdumpyError, UsageError
from kdumpy.host import machine as host_machine
from kdumpy.host import rehearsed
from kdumpy.host import settings as host_settings
from kdumpy.host.system import System
from kdumpy.vm import rehearsal, reservation
from kdumpy.vm.qemu import accelerator
from kdumpy.vm.rehearsal import Rehearsed, Subject
from kdumpy.vm.troubles import Stage

if TYPE_CHECKING:
    from kdumpy.vm.faults import Fault

LARGEST = 1024 * MIB
"""The largest reservation that a bisection tries where the first is too small."""


class Progress(Protocol):
    """Who is told how it goes."""

    def stage(self, stage: Stage, seconds: float, text: str) -> None:
        """As rehearsal.Say."""

    def note(self, text: str) -> None:
        """Say something else in a line."""


@dataclass(frozen=True)
class Opened:
    """What the dump says."""

    health: str
    """complete, incomplete, damaged; encrypted: only the key's owner can open it."""
    problems: str
    bytes: int
    release: str
    cause: str
    """Empty where it is encrypted."""
    confidence: str
    title: str


@dataclass(frozen=True)
class Try:
    """One step of a bisection."""

    crashkernel: int
    works: bool
    why: str


@dataclass(frozen=True)
class Answer:
    """What came of it."""

    rehearsed: Rehearsed
    crashkernel: int
    """Bytes that were reserved in `rehearsed`."""
    opened: Opened | None
    expected: str
    """The cause that the dump must have."""
    accelerator: str
    tries: tuple[Try, ...] = ()
    bisected: int | None = None
    """The smallest reservation that worked, by trying."""

    @property
    def arrived(self) -> bool:
        """Whether a whole dump arrived as configured."""
        return self.rehearsed.trouble is None and self.opened is not None \
            and self.opened.health in ("complete", "encrypted")

    @property
    def right(self) -> bool:
        """Whether it has the cause that was brought about; an encrypted one cannot be asked."""
        return self.opened is not None and (self.opened.cause == self.expected or self.opened.health == "encrypted")

    @property
    def good(self) -> bool:
        """Whether all is well."""
        return self.arrived and self.right

    @property
    def need(self) -> int | None:
        """Bytes of reservation that the capture took; None where it was not measured."""
        memory = self.rehearsed.memory
        return self.bisected or (memory.need if memory is not None and self.good else None)

    @property
    def smallest(self) -> int | None:
        """The smallest safe reservation."""
        return None if self.need is None else reservation.safe(self.need)


def find(arguments: argparse.Namespace, work: Path) -> Found:
    """Find out what is to be rehearsed; the stand-in image is built in `work`.

    Raises:
        UsageError: the arguments do not go together.
        HostError: a program or a kernel is missing.
    """
    from kdumpy.vm import programs
    from kdumpy.vm.qemu import PROGRAM

    if (arguments.kernel is None) != (arguments.modules is None):
        raise UsageError("--kernel and --modules go together",
                         mend="give both; or --release for a kernel that is installed")
    if arguments.kernel is not None and arguments.release is not None:
        raise UsageError("--kernel and --release exclude each other", mend="--release names an installed kernel")
    system = System()
    machine = host_machine.look(system)
    if machine.architecture != "x86_64":
        raise HostError("a rehearsal runs x86-64 kernels only so far", where=machine.architecture,
                        mend="rehearse on an x86-64 machine, or crash a spare one: kdumpy test")
    programs.need((PROGRAM, "setpriv", "busybox"), machine.package_manager)
    return subject_of(arguments, work, system, machine, host_settings.load(system))


def rehearse(found: Found, arguments: argparse.Namespace, work: Path, progress: Progress) -> Answer:
    """Run it, and open what arrived.

    Raises:
        KdumpyError: a program is missing, or QEMU cannot be started.
    """
    subject = found.subject
    kind = accelerator(subject.kernel)
    if kind == "tcg":
        progress.note("no usable KVM here: the guest is emulated, and slow")
    done = _run(subject, work / "run", progress)
    tries = [_try(subject, done)] if arguments.bisect else []
    while arguments.bisect and done.trouble and done.trouble.short_of_memory and 2 * subject.crashkernel <= LARGEST:
        subject = _larger(subject, 2 * subject.crashkernel)
        progress.note(f"too small; again with crashkernel={subject.crashkernel // MIB}M")
        done = _run(subject, work / f"run-{subject.crashkernel // MIB}M", progress)
        tries.append(_try(subject, done))
    opened = None
    if done.dump is not None:
        progress.note("opening the dump")
        opened = opened_dump(done.dump, subject.fault)
    answer = Answer(done, subject.crashkernel, opened, subject.fault.cause, kind, tuple(tries))
    if not arguments.bisect or not answer.good or done.memory is None:
        return answer

    def works(size: int) -> bool:
        progress.note(f"trying crashkernel={size // MIB}M")
        again = rehearsal.with_reservation(subject, size)
        outcome = _run(again, work / f"run-{size // MIB}M", progress, whole=False)
        tries.append(_try(again, outcome))
        return outcome.trouble is None

    smallest = reservation.bisect(works, subject.crashkernel, done.memory.need)
    return replace(answer, tries=tuple(tries), bisected=smallest)


def _run(subject: Subject, work: Path, progress: Progress, *, whole: bool = True) -> Rehearsed:
    work.mkdir(mode=0o700)
    (work / "cmdline").write_text(f"crashed: {subject.cmdline}\ncapture: {subject.capture_cmdline}\n")
    done = rehearsal.run(subject, work, progress.stage, fetch=whole, patient=whole)
    for name in ("initrd", "target.img"):      # large, and of no further use
        (work / name).unlink(missing_ok=True)
    return done


def _larger(subject: Subject, size: int) -> Subject:
    memory = max(subject.memory_mib, 2 * size // MIB + 384)
    disk = replace(subject.disk, mib=max(subject.disk.mib, memory + 256))
    return replace(rehearsal.with_reservation(subject, size), memory_mib=memory, disk=disk)


def _try(subject: Subject, done: Rehearsed) -> Try:
    return Try(subject.crashkernel, done.trouble is None, done.trouble.what if done.trouble else "")


def opened_dump(path: Path, fault: Fault) -> Opened:
    """Open a dump as `kdumpy report` does; without the analysis side's libraries, look at its log only."""
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.health import health

    size = path.stat().st_size
    if path.suffix in (".age", ".gpg"):
        return Opened("encrypted", "", size, "", "", "", "")
    try:
        with open_dump(path) as dump:
            state = health(dump)
            release = dump.vmcoreinfo.osrelease or ""
    except KdumpyError as error:
        return Opened("damaged", str(error), size, "", "", "", "")
    problems = "; ".join(reason.what for reason in state.reasons)
    try:
        import drgn  # noqa: F401  whether it is there
    except ImportError:
        cause, title = _by_log(path, fault)
        return Opened(state.state.value, problems, size, release, cause, "likely" if cause else "", title)
    try:
        verdict = _diagnosed(path)
    except KdumpyError as error:
        return Opened("damaged", str(error), size, release, "", "", "")
    return Opened(state.state.value, problems, size, release, *verdict)


def _diagnosed(path: Path) -> tuple[str, str, str]:
    import logging

    from kdumpy.debuginfo.dwarf import Dwarf
    from kdumpy.diagnosis import diagnose
    from kdumpy.kernel import open_kernel

    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    with open_kernel(path, vmlinux=[], dwarf=Dwarf("no")) as kernel:
        verdict = diagnose(kernel).verdict
        return verdict.cause, verdict.confidence, verdict.title


def _by_log(path: Path, fault: Fault) -> tuple[str, str]:
    """Return the cause if the dump's log shows the fault, and the line that does."""
    from kdumpy.dumpfile import open_dump
    from kdumpy.dumpfile.dmesg import read_log

    with open_dump(path) as dump:
        lines: Iterator[str] = (record.text for record in read_log(dump, allow_salvage=False).records)
        for line in lines:
            if any(re.search(symptom, line) for symptom in fault.symptoms):
                return fault.cause, line.split("\n")[0]
    return "", ""


def record(found: Found, answer: Answer) -> str:
    """Keep what was measured for `setup` and `status`, when root rehearsed a kernel of this host; return the path."""
    system = System()
    if not found.installed or os.geteuid() != 0:
        return ""
    memory = answer.rehearsed.memory
    trouble = answer.rehearsed.trouble
    values: dict[str, object] = {
        "release": found.subject.release, "good": answer.good, "image": found.origin,
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "crashkernel": answer.crashkernel,
        "smallest_safe_crashkernel": answer.smallest, "bisected_crashkernel": answer.bisected,
        "peak_memory": memory.used if memory else None, "peak_process": memory.process if memory else None,
        "seconds": round(answer.rehearsed.seconds, 1), "trouble": trouble.what if trouble else "",
        "mend": trouble.mend if trouble else ""}
    rehearsed.save(system, values)
    return rehearsed.PATH

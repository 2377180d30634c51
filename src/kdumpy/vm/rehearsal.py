"""A crash rehearsed: a kernel, a capture image and command lines, taken through a real panic in a virtual machine.

What is rehearsed comes in as values (`Subject`); nothing outside of the working directory is written. The dump that
arrives is for the caller to open.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.modules import ModuleTree
from kdumpy.vm import rehearsalguest, troubles
from kdumpy.vm.faults import Fault
from kdumpy.vm.paths import room_for_a_guest
from kdumpy.vm.qemu import Disk, Hardware, Machine
from kdumpy.vm.rehearsalguest import Collector
from kdumpy.vm.reservation import Memory
from kdumpy.vm.targetdisk import TargetDisk
from kdumpy.vm.troubles import Stage, Trouble

SECONDS: Mapping[Stage, float] = {Stage.BOOT: 120, Stage.LOAD: 60, Stage.CRASH: 45, Stage.START: 180, Stage.LOG: 120,
                                  Stage.DUMP: 600, Stage.END: 60}
"""How long a stage may take under emulation on a busy machine; all that fails mostly says so much earlier."""

Say = Callable[[Stage, float, str], None]
"""Told when a stage begins (its name, seconds since power on, "") and of each step of the ladder (its text)."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is rehearsed."""

    kernel: Path
    """Bootable file (bzImage) of the kernel that crashes."""
    release: str
    modules: ModuleTree
    """Of the capture kernel."""
    image: Path
    """The capture image, which is taken as it is."""
    capture_kernel: Path | None = None
    """None: the kernel that crashes."""
    unpacked: int
    """Bytes of memory that its files take; 0: not known."""
    cmdline: str
    """Of the kernel that crashes; see bootparams.crashed."""
    capture_cmdline: str
    crashkernel: int
    """Bytes that `cmdline` reserves."""
    disk: TargetDisk
    """The disk that the image's target stands on."""
    fault: Fault
    memory_mib: int = 1024
    cpus: int = 2
    hostname: str = "rehearsal"
    overlay: Mapping[str, bytes] = field(default_factory=dict)
    """Files that are laid over the image's, by their path in it."""
    drivers: tuple[str, ...] = ()
    """Modules that the capture kernel has to insert first, beside those of the image."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage that was gone through."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it."""

    phases: tuple[Phase, ...]
    trouble: Trouble | None
    """Why no whole dump was saved as configured, or None."""
    memory: Memory | None
    """None when the capture did not end by itself."""
    steps: tuple[str, ...]
    """The ladder's lines."""
    console: Path
    """What both kernels printed."""
    directory: Path | None
    """The crash's directory off the guest's disk: vmcore, logs; None when there is none."""

    @property
    def seconds(self) -> float:
        """From power on to power off."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def dump(self) -> Path | None:
        """The whole dump, or None."""
        if self.directory is None:
            return None
        return next((path for path in sorted(self.directory.glob("vmcore*"))
                     if path.suffix in ("", ".age", ".gpg") and not re.search("dmesg|incomplete", path.name)), None)


def run(subject: Subject, work: Path, say: Say = lambda stage, seconds, text: None, *, fetch: bool = True,
        patient: bool = True) -> Rehearsed:
    """Boot, crash, capture, and fetch what was saved.

    Args:
        subject: what is rehearsed.
        work: an empty directory; files of up to the guest's memory's size are left in it.
        say: is told what goes on.
        fetch: copy the crash's directory off the disk.
        patient: wait for what the ladder still saves after its first way failed.

    Raises:
        LaboratoryError, HostError: a program is missing, or QEMU could not be started.
    """
    over, initrd, target, console = (work / name for name in ("capture", "initrd", "target.img", "console.log"))
    rehearsalguest.overlaid(subject.image, subject.overlay,
                            rehearsalguest.drivers_of(subject.modules, subject.drivers), over)
    recipe = rehearsalguest.recipe(subject.fault, subject.capture_cmdline, subject.hostname)
    rehearsalguest.build_initramfs(subject.capture_kernel or subject.kernel, over, recipe, initrd)
    disk = subject.disk.make(target)
    hardware = Hardware(kernel=subject.kernel, initrd=initrd, memory_mib=subject.memory_mib, cpus=subject.cpus,
                        cmdline=subject.cmdline, disks=(disk,))
    with room_for_a_guest(), Machine(hardware, console) as machine:
        watch = _Watch(subject, over.stat().st_size, say, patient=patient)
        watch.follow(machine)
    directory = _fetch(subject, disk, watch.steps, work / "crash") if fetch else None
    return Rehearsed(tuple(watch.phases), watch.trouble, watch.memory, tuple(watch.steps), console, directory)


def with_reservation(subject: Subject, size: int) -> Subject:
    """Return the same rehearsal with another crashkernel=."""
    cmdline = re.sub(r"\bcrashkernel=\S+", f"crashkernel={size >> 10}K", subject.cmdline)
    return replace(subject, crashkernel=size, cmdline=cmdline)


class _Watch:
    """Follows the console from stage to stage."""

    def __init__(self, subject: Subject, image: int, say: Say, *, patient: bool) -> None:
        self._subject = subject
        self._image = image
        self._say = say
        self._patient = patient
        self._started = self._entered = time.monotonic()
        self._stage = Stage.BOOT
        self._lines: list[str] = []
        """Since the last change from one kernel to the other."""
        self._done = False
        self.phases: list[Phase] = []
        self.steps: list[str] = []
        self.trouble: Trouble | None = None
        self.memory: Memory | None = None

    def follow(self, machine: Machine) -> None:
        """Wait until the guest is through, or stands still."""
        self._say(self._stage, 0, "")
        while not self._done:
            lines, ended = machine.follow()
            for line in lines:
                if not self._done:
                    self._lines.append(line)
                    self._line(line, machine)
            limit = SECONDS[self._stage] + (self._subject.fault.seconds if self._stage is Stage.CRASH else 0)
            if not self._done and (ended or time.monotonic() - self._entered > limit):
                self._give_up(ended, machine.last_words(), limit)
            if not self._done:
                time.sleep(0.05)
        self._leave()

    def _line(self, line: str, machine: Machine) -> None:
        """Take a line of the console."""
        if self._stage in (Stage.BOOT, Stage.LOAD):
            self._line_of_first(line, machine)
        elif self._stage is Stage.CRASH and (re.search(r"\bLinux version \d", line) or "kdumpy: " in line):
            self._lines = [line]
            self._enter(Stage.START)
        if self._stage in (Stage.START, Stage.LOG, Stage.DUMP, Stage.END):
            self._line_of_capture(line)

    def _line_of_first(self, line: str, machine: Machine) -> None:
        match = re.search(r"^REHEARSAL (\w+) ?(.*?)\s*$", line)
        if match is None:
            if "Kernel panic - not syncing" in line:
                self._fail(troubles.in_first_kernel(self._stage, self._lines, False, ""))
            return
        word, value = match.groups()
        if word == "reserved":
            if value in ("none", "0"):
                self._fail(troubles.not_reserved(value, self._lines))
            else:
                self._enter(Stage.LOAD)
        elif word == "refused":
            self._fail(troubles.refused(int(value)))
        elif word == "ready":
            self._enter(Stage.CRASH)
            if self._subject.fault.monitor:
                machine.monitor(self._subject.fault.monitor)

    def _line_of_capture(self, line: str) -> None:
        match = re.search(r"\bREHEARSAL memory (\d+) (\d+) (\d+)", line)
        if match:
            total, least, process = (int(text) << 10 for text in match.groups())
            self.memory = Memory(self._subject.crashkernel, total, least, process, self._image, self._unpacked())
        if troubles.ENDS_CAPTURE.search(line):
            self._fail(troubles.in_capture(self._stage, self._lines, False, 0))
            return
        match = re.search(r"(?:^|\s)kdumpy: (.*?)\s*$", line)
        if match is None:
            return
        text = match[1]
        if not re.match(r" ?\d+ %", text):
            self.steps.append(text)
            self._say(self._stage, self._now(), text)
        if self._stage is Stage.START:
            self._enter(Stage.LOG)
        if text.startswith("saved the kernel log"):
            self._enter(Stage.DUMP)
        elif text.startswith("saved "):
            self._enter(Stage.END)
        elif text.startswith("trying with less memory") or "(killed: most likely" in text:
            self.trouble = troubles.in_capture(self._stage, self._lines, True, 0)
            self._done = not self._patient
        elif text.startswith(("no whole dump was saved", "ended early")):
            self.trouble = self.trouble or troubles.in_capture(self._stage, self._lines, True, 0)
            self._enter(Stage.END)
        elif re.match(r"(poweroff|reboot|halt|a shell)\b", text):
            if not self.trouble and self._stage is not Stage.END:
                self.trouble = troubles.in_capture(self._stage, self._lines, True, 0)
            self._done = True

    def _unpacked(self) -> int:
        """Return what the image's files take: as the builder counted, or as the capture kernel did (tmpfs)."""
        told = re.search(r"Shmem: (\d+) MiB", " ".join(self.steps[:1]))
        return max(self._subject.unpacked, int(told[1]) << 20 if told else 0)

    def _give_up(self, ended: bool, qemu: str, limit: float) -> None:
        if self._stage is Stage.END:        # saved, and then no word of the final action
            self._done = True
        elif self._stage in (Stage.BOOT, Stage.LOAD):
            self._fail(troubles.in_first_kernel(self._stage, self._lines, ended, qemu))
        elif self._stage is Stage.CRASH:
            self._fail(troubles.not_started(self._lines, ended))
        else:
            self._fail(troubles.in_capture(self._stage, self._lines, ended, limit))

    def _fail(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self._done = True

    def _enter(self, stage: Stage) -> None:
        self._leave()
        self._stage = stage
        self._say(stage, self._now(), "")

    def _leave(self) -> None:
        now = time.monotonic()
        self.phases.append(Phase(self._stage, now - self._entered))
        self._entered = now

    def _now(self) -> float:
        return time.monotonic() - self._started


def _fetch(subject: Subject, disk: Disk, steps: list[str], target: Path) -> Path | None:
    """Copy the crash's directory off the disk: where the ladder said that it saved something."""
    places = [match[1] for step in steps if (match := re.search(r"\bto [^ ]+: (/\S+)/vmcore-dmesg\.txt", step) or
                                             re.search(r"^saved [^ ]+: (/\S+)/vmcore", step) or
                                             re.search(r"unfiltered, to \S+: (\S+)/vmcore", step))]
    collector = Collector(disk, subject.disk.filesystem, subject.kernel, subject.modules)
    for place in dict.fromkeys(reversed(places)):
        with suppress(LaboratoryError):
            collector.fetch(place, target)
            return target
    return None

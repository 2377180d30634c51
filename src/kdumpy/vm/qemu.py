"""QEMU: which accelerator really works, starting a guest, watching its console, talking QMP."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdumpy.errors import LaboratoryError
from kdumpy.vm.architectures import AMD64, Architecture
from kdumpy.vm.paths import laboratory_home, locked

PROGRAM = f"qemu-system-{AMD64.machine}"
ELSEWHERE = "/usr/libexec/qemu-kvm"
"""Where RHEL and its kin have it, under another name."""

PROBE_SECONDS = 20
"""How long a kernel may take under KVM to find that it has no root; 1 s is usual."""


def accelerator(kernel: Path) -> str:
    """Return "kvm" when a Linux kernel really runs under KVM, else "tcg"; $KDUMPY_ACCEL overrides.

    /dev/kvm may exist and refuse; it may also run a boot sector and the BIOS, and then
    stop for ever in the kernel (seen with nested KVM: "INTERNAL_ERROR" in the host's log).
    So a kernel is booted without a root: it has to panic and end QEMU by itself. The
    answer holds until this machine is booted again.
    """
    chosen = os.environ.get("KDUMPY_ACCEL")
    if chosen:
        return chosen
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    memo = laboratory_home() / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with locked("accelerator"):
        try:
            known = json.loads(memo.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        if known.get("boot") != boot:
            known = {"boot": boot, "accelerator": "kvm" if _boots_under_kvm(kernel) else "tcg"}
            memo.write_text(json.dumps(known) + "\n")
    return str(known["accelerator"])


def _boots_under_kvm(kernel: Path) -> bool:
    command = [_program(), "-accel", "kvm", "-cpu", "host", "-m", "256", "-smp", "2", "-nodefaults",
               "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(kernel),
               "-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"Kernel panic" in done.stdout


def _program(architecture: Architecture = AMD64) -> str:
    name = f"qemu-system-{architecture.machine}"
    found = shutil.which(name) or (shutil.which(ELSEWHERE) if architecture is AMD64 else None)
    if found is None:
        raise LaboratoryError("QEMU is not installed", why=name, mend="tools/system-packages lab")
    return found


def _processor(hardware: Hardware) -> list[str]:
    """Return the arguments that say what the guest's machine and processor are, and how they come about."""
    if hardware.architecture.board:
        return ["-accel", "tcg,thread=multi", *hardware.architecture.board]
    kind = accelerator(hardware.kernel)
    return ["-accel", "tcg,thread=multi" if kind == "tcg" else kind,
            # QEMU 7.2 emulates AVX2 wrongly: numpy's argsort comes out unsorted.
            "-cpu", "max,avx2=off" if kind == "tcg" else "host"]


BUSES: dict[str, tuple[tuple[str, ...], str]] = {
    "virtio-blk": ((), "virtio-blk-pci"),
    "nvme": ((), "nvme"),
    "ahci": (("ich9-ahci,id=ahci",), "ide-hd,bus=ahci.{number}"),
    "virtio-scsi": (("virtio-scsi-pci,id=scsi",), "scsi-hd,bus=scsi.0"),
    "pvscsi": (("pvscsi,id=pvscsi",), "scsi-hd,bus=pvscsi.0"),
    "megasas": (("megasas,id=megasas",), "scsi-hd,bus=megasas.0"),
    "piix": ((), "ide-hd,bus=ide.{number}"),
}
"""What a disk hangs on → the controllers that it takes, and its own device; QEMU's names."""


@dataclass(frozen=True)
class Disk:
    """A raw disk; all disks of a guest hang on the same kind of bus."""

    path: Path
    serial: str
    """Up to 20 characters; the guest reads it in /sys/block/vdX/serial."""
    bus: str = "virtio-blk"
    """A key of BUSES."""


@dataclass(frozen=True)
class Hardware:
    """What a guest is made of."""

    kernel: Path
    """What is booted; with `firmware` only what KVM is tried with."""
    initrd: Path | None
    cmdline: str
    memory_mib: int
    cpus: int = 2
    disks: tuple[Disk, ...] = ()
    extra: tuple[str, ...] = field(default=())
    """Further arguments for QEMU."""
    firmware: bool = False
    """Boot as a real machine does, from the first disk by its boot loader; a reboot is one and does not end it."""
    architecture: Architecture = AMD64


class Machine:
    """A running guest: a context manager that leaves no process behind."""

    def __init__(self, hardware: Hardware, console: Path) -> None:
        self.hardware = hardware
        self.console = console
        """The log of the serial console, appended to while the guest runs."""
        self._process: subprocess.Popen[str] | None = None
        self._read = 0
        self._greeted = False

    def command(self) -> list[str]:
        """Return QEMU's command line."""
        hardware = self.hardware
        # A guest must not outlive us, not even when we are killed.
        command = ["setpriv", "--pdeathsig", "KILL", _program(hardware.architecture), *_processor(hardware),
                   "-m", str(hardware.memory_mib), "-smp", str(hardware.cpus),
                   "-display", "none", "-nodefaults", "-qmp", "stdio",
                   "-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"]
        if not hardware.firmware:
            command += ["-no-reboot", "-kernel", str(hardware.kernel), "-append", hardware.cmdline]
        if hardware.initrd is not None:
            command += ["-initrd", str(hardware.initrd)]
        for controller in dict.fromkeys(name for disk in hardware.disks for name in BUSES[disk.bus][0]):
            command += ["-device", controller]
        for number, disk in enumerate(hardware.disks):
            device = BUSES[disk.bus][1].format(number=number)
            # A guest's disk lives a minute: what it flushes need not reach the platter.
            command += ["-drive", f"file={disk.path},if=none,id={disk.serial},format=raw,cache=unsafe",
                        "-device", f"{device},drive={disk.serial},serial={disk.serial}"]
        return [*command, *hardware.extra]

    def __enter__(self) -> Self:
        self.console.write_bytes(b"")
        self._process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        process = self._running()
        if process.poll() is None:
            process.kill()
        process.communicate()

    def wait_for(self, pattern: str, seconds: float, failures: tuple[str, ...] = ()) -> re.Match[str]:
        """Wait until a line of the console matches; return the match. What was read is not read again.

        Raises:
            LaboratoryError: a pattern of `failures` came first, the guest ended, or time is over.
        """
        deadline = time.monotonic() + seconds
        good, bad = re.compile(pattern), [re.compile(text) for text in failures]
        while True:
            ended = self._running().poll() is not None      # asked first: then nothing is missed
            for line in self._lines(last=ended):
                match = good.search(line)
                if match:
                    return match
                if any(text.search(line) for text in bad):
                    raise self._error("the guest reported a failure", line)
            if ended:
                raise self._error("the guest ended too early", f"no line matches {pattern!r}")
            if time.monotonic() > deadline:
                raise self._error("the guest did not get there in time", f"{seconds:.0f} s for {pattern!r}")
            time.sleep(0.05)

    def follow(self) -> tuple[list[str], bool]:
        """Return the console's lines not seen yet, and whether the guest has ended: then they are the last."""
        ended = self._running().poll() is not None      # asked first: then nothing is missed
        return self._lines(last=ended), ended

    def last_words(self) -> str:
        """Return what QEMU itself said on standard error, after it has ended; else an empty string."""
        process = self._running()
        if process.poll() is None or process.stderr is None:
            return ""
        return process.stderr.read().strip()[-300:]

    def wait_end(self, seconds: float) -> None:
        """Wait until the guest has powered off.

        Raises:
            LaboratoryError: it has not, and was killed; or QEMU itself failed.
        """
        process = self._running()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise self._error("the guest did not power off in time", f"{seconds:.0f} s") from None
        if process.returncode:
            raise self._error("QEMU failed", f"exit code {process.returncode}")

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and return its answer.

        Source: https://www.qemu.org/docs/master/interop/qmp-spec.html

        Raises:
            LaboratoryError: QEMU refused the command or is gone.
        """
        if not self._greeted:
            self._answer()                        # the greeting
            self._greeted = True
            self._send({"execute": "qmp_capabilities"})
        return self._send({"execute": command, "arguments": arguments})

    def monitor(self, line: str) -> str:
        """Run a line of the human monitor and return what it printed."""
        return str(self.qmp("human-monitor-command", **{"command-line": line}))

    def _send(self, message: dict[str, Any]) -> Any:
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        while True:
            answer = self._answer()
            if "error" in answer:
                raise LaboratoryError("QEMU refused a command", where=message["execute"],
                                      why=str(answer["error"].get("desc", "")))
            if "return" in answer:
                return answer["return"]           # anything else is an event

    def _answer(self) -> dict[str, Any]:
        stdout = self._running().stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise self._error("QEMU ended", "its QMP stream is closed")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise LaboratoryError("the guest is not started", mend="use `with Machine(…)`")
        return self._process

    def _lines(self, last: bool) -> list[str]:
        """Return the console's whole lines not seen yet; when it is the `last` call, also half a line."""
        with self.console.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        end = len(data) if last else data.rfind(b"\n") + 1
        self._read += end
        return data[:end].decode(errors="replace").splitlines()

    def _error(self, what: str, why: str) -> LaboratoryError:
        process = self._running()
        if process.poll() is not None and process.returncode and process.stderr is not None:
            why += "; " + process.stderr.read().strip()[-300:]
        tail = self.console.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        if tail:
            why += f"; last line: {tail[-1][:200]}"
        return LaboratoryError(what, where=str(self.console), why=why, mend="read the console log")


@cache
def qemu_devices() -> frozenset[str]:
    """Return the names of the devices that this QEMU has; distributions leave some out."""
    listing = subprocess.run([_program(), "-device", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             check=False).stdout
    return frozenset(re.findall(r'(?:name|alias) "([^"]+)"', listing))

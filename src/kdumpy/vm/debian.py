"""A whole Debian in a guest: systemd, GRUB on a disk, an ext4 root; made by mmdebstrap, driven by commands.

For what only a whole system shows: that a host which was armed saves its next crash, and that undoing leaves it as
it was. The disk is made once for each recipe and copied for each guest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdumpy.errors import LaboratoryError
from kdumpy.vm.paths import laboratory_home, locked
from kdumpy.vm.qemu import Disk, Hardware, Machine
from kdumpy.vm.sources import debian_archive

SUITE = "bookworm"

PACKAGES = ("systemd-sysv", "udev", "kmod", "dbus", "linux-image-cloud-amd64", "grub-pc", "initramfs-tools", "zstd",
            "busybox", "python3", "e2fsprogs", "iproute2", "ca-certificates", "procps", "fdisk")
"""What an administrator's smallest Debian server has; kdumpy's own dependencies come with its package."""

ROOT_UUID = "6b64756d-7079-4000-8000-000000000001"
DISK_BYTES = 3 << 30
_START = 1 << 20
"""Bytes before the first partition: GRUB lies there."""
_FILES = Path(__file__).parent / "debian_files"
_BOOT_S = 600
"""A boot takes 15 s under emulation on an idle machine; on a busy one, with an image that is built again, minutes."""

_GRUB = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check"
GRUB_TERMINAL=console
GRUB_DISABLE_OS_PROBER=true
"""
"""no_timer_check: emulated on a busy machine, a timer that is waited for in vain is a panic of the kernel's start, and
the capture kernel, which inherits it, saves nothing."""

_NETWORK = "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n"


@dataclass(frozen=True)
class Answer:
    """What a command in the guest said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Base:
    """A disk with a whole system that was never armed, and the kernel on it."""

    disk: Path
    kernel: Path

    def copy(self, to: Path) -> Path:
        """Copy the disk, holes as holes, for a guest of its own."""
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.disk, to], check=True)
        return to


def base(further: tuple[str, ...] = ()) -> Base:
    """Return the disk, made when it is not there: about two minutes under emulation.

    Args:
        further: packages that are installed beside PACKAGES.

    Raises:
        LaboratoryError: the archive does not answer, or the system does not come up.
    """
    home = laboratory_home() / "debian" / f"{SUITE}-{_recipe(PACKAGES + further)}"
    with locked("debian"):
        if not (home / "disk.img").exists():
            partial = home.with_name(home.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _make(partial, PACKAGES + further)
            partial.replace(home)
    return Base(home / "disk.img", home / "vmlinuz")


def _recipe(packages: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((packages, ROOT_UUID, DISK_BYTES, _GRUB, _NETWORK)).encode())
    for file in sorted(_FILES.iterdir()):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _make(home: Path, packages: tuple[str, ...]) -> None:
    root = home / "root"
    sources = home / "sources.list"
    sources.write_text("\n".join(debian_archive().lines(SUITE)) + "\n")
    _run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}", "--quiet",
         # _apt may not enter a home directory.
         "--aptopt=APT::Sandbox::User \"root\"", SUITE, str(root), str(sources), seconds=1200)
    _configure(root)
    kernel = next(iter(root.glob("boot/vmlinuz-*")))
    initrd = next(iter(root.glob("boot/initrd.img-*")))
    shutil.copyfile(kernel, home / "vmlinuz")
    shutil.copyfile(initrd, home / "initrd")
    _write_disk(root, home / "disk.img")
    shutil.rmtree(root)
    # Boot loader and its menu are installed as on any machine: by the system itself.
    direct = Hardware(home / "vmlinuz", home / "initrd", f"root=UUID={ROOT_UUID} ro console=ttyS0 quiet no_timer_check",
                      1024)
    with Guest(home / "disk.img", home / "console.log", direct) as guest:
        for words in (("grub-install", "/dev/vda"), ("update-grub",)):
            answer = guest.run(words, seconds=300)
            if answer.code:
                raise LaboratoryError("the guest cannot install its boot loader", where=" ".join(words),
                                      why=answer.err.strip()[-300:])
        guest.power_off()


def _configure(root: Path) -> None:
    for name, text in (("etc/hostname", "web-3\n"), ("etc/hosts", "127.0.0.1 localhost web-3\n"),
                       ("etc/fstab", f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n"),
                       ("etc/default/grub", _GRUB), ("etc/systemd/network/80-wired.network", _NETWORK),
                       ("etc/machine-id", "6b64756d707940008000000000000001\n"),
                       ("usr/local/lib/agent.py", (_FILES / "agent.py").read_text()),
                       ("etc/systemd/system/kdumpy-agent.service", (_FILES / "kdumpy-agent.service").read_text())):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True, exist_ok=True)
    # Of no use in a guest that lives for minutes, and seconds of each of its boots.
    for unit in ("e2scrub_reap.service", "modprobe@fuse.service", "systemd-logind.service", "apt-daily.timer",
                 "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "man-db.timer"):
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (wanted / "kdumpy-agent.service").symlink_to("/etc/systemd/system/kdumpy-agent.service")
    (wanted / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")


def _write_disk(root: Path, disk: Path) -> None:
    """Write an MBR with one partition to the end, and an ext4 of a tree in it; no loop device is needed."""
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
        sectors = (DISK_BYTES - _START) // 512
        # Source: UEFI specification, legacy master boot record: status, CHS, type, CHS, first sector, sectors.
        entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", _START // 512, sectors)
        file.seek(440)
        file.write(b"kdpy\0\0" + entry + bytes(48) + b"\x55\xaa")
    _run("mkfs.ext4", "-q", "-F", "-U", ROOT_UUID, "-L", "root", "-E", f"offset={_START},hash_seed={ROOT_UUID}",
         "-d", str(root), str(disk), f"{(DISK_BYTES - _START) // 1024}k", seconds=300)


def _run(*words: str, seconds: float) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise LaboratoryError("a program is missing", why=words[0], mend="tools/system-packages lab") from error
    except subprocess.TimeoutExpired as error:
        raise LaboratoryError("a program did not end in time", where=words[0], why=f"{seconds:.0f} s") from error
    if done.returncode:
        raise LaboratoryError("a program failed", where=words[0], why=done.stderr.strip()[-500:])


class Guest:
    """A whole system that runs, and takes commands: a context manager.

    Args:
        disk: its own copy of a base's disk.
        console: the log of its serial console.
        hardware: what it is made of, without the disk; `Hardware(…, firmware=True)` boots as a machine does.
    """

    def __init__(self, disk: Path, console: Path, hardware: Hardware) -> None:
        self._socket_path = console.with_name(console.name + ".agent")
        extra = (*hardware.extra, "-device", "virtio-serial-pci",
                 "-chardev", f"socket,id=agent,path={self._socket_path},server=on,wait=off",
                 "-device", "virtserialport,chardev=agent,name=agent", "-device", "virtio-rng-pci")
        self.machine = Machine(Hardware(hardware.kernel, hardware.initrd, hardware.cmdline, hardware.memory_mib,
                                        hardware.cpus, (Disk(disk, "root"), *hardware.disks), extra,
                                        hardware.firmware), console)
        self._socket: socket.socket | None = None
        self._pending = b""

    def __enter__(self) -> Self:
        self._socket_path.unlink(missing_ok=True)
        self.machine.__enter__()
        try:
            self._connect()
            self.wait_for_boot()
        except BaseException:
            self.machine.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()
        self.machine.__exit__(kind, error, traceback)
        self._socket_path.unlink(missing_ok=True)

    def run(self, words: Sequence[str], *, stdin: str = "", seconds: float = 120) -> Answer:
        """Run a command in the guest and return what it said."""
        self.send(words, stdin=stdin, seconds=seconds)
        answer = self._line(seconds + 30)
        return Answer(int(answer["code"]), str(answer["out"]), str(answer["err"]))

    def send(self, words: Sequence[str], *, stdin: str = "", seconds: float = 120) -> None:
        """Run a command whose end is not awaited, such as one that crashes the guest."""
        question = {"words": list(words), "stdin": stdin, "seconds": seconds}
        self._connected().sendall(json.dumps(question).encode() + b"\n")

    def shell(self, script: str, *, seconds: float = 120) -> str:
        """Run a shell script and return its standard output.

        Raises:
            LaboratoryError: it failed.
        """
        answer = self.run(("sh", "-euc", script), seconds=seconds)
        if answer.code:
            raise LaboratoryError("a command in the guest failed", where=script.splitlines()[0][:80],
                                  why=(answer.err or answer.out).strip()[-600:])
        return answer.out

    def put(self, file: Path, to: str) -> None:
        """Copy a file of this machine into the guest."""
        self.run(("sh", "-c", ": >\"$1\"", "sh", to))
        with file.open("rb") as source:
            while data := source.read(3 << 19):
                answer = self.run(("sh", "-c", "base64 -d >>\"$1\"", "sh", to), stdin=base64.b64encode(data).decode())
                if answer.code:
                    raise LaboratoryError("cannot write into the guest", where=to, why=answer.err)

    def get(self, path: str) -> bytes:
        """Return a file of the guest.

        Raises:
            LaboratoryError: it cannot be read.
        """
        return base64.b64decode(self.shell(f"base64 -w0 {path}"))

    def wait_for_boot(self, seconds: float = _BOOT_S) -> None:
        """Wait until the guest's agent says that it is there: at the end of each boot.

        Raises:
            LaboratoryError: it did not within `seconds`, or the guest ended.
        """
        while "hello" not in self._line(seconds):
            pass

    def reboot(self) -> None:
        """Reboot in order, and wait until the guest is back."""
        self.send(("systemctl", "reboot"))
        self.wait_for_boot()

    def power_off(self) -> None:
        """Shut down in order."""
        self.send(("systemctl", "poweroff"))
        self.machine.wait_end(120)

    def _connect(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(self._socket_path))
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise LaboratoryError("QEMU does not open the agent's socket", why=str(error)) from error
                time.sleep(0.05)
            else:
                return

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise LaboratoryError("the guest is not started", mend="use `with Guest(…)`")
        return self._socket

    def _line(self, seconds: float) -> dict[str, Any]:
        stream = self._connected()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            stream.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = stream.recv(1 << 20)
            except TimeoutError:
                raise self._lost(f"nothing came for {seconds:.0f} s") from None
            except OSError as error:
                raise self._lost(str(error)) from error
            if not data:
                raise self._lost("the guest has ended")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _lost(self, why: str) -> LaboratoryError:
        tail = self.machine.console.read_bytes()[-600:].decode(errors="replace").strip()
        return LaboratoryError("the guest does not answer", where=str(self.machine.console), why=f"{why}; {tail}")

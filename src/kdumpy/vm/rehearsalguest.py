"""A rehearsal's guest: the initramfs of the kernel that crashes, and what is laid over the capture image.

The capture image is taken byte for byte. What a rehearsal adds is a second archive behind it, which the kernel
unpacks over the first: hooks of the ladder that watch the memory, drivers of the guest's disk where the image has
others, another target where the host's is out of reach.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.image.initramfs import Initramfs, compressed
from kdumpy.image.modules import ModuleTree, read_module
from kdumpy.vm import bootparams, loader, programs
from kdumpy.vm.faults import FAULTS, Fault
from kdumpy.vm.packages import run
from kdumpy.vm.paths import room_for_a_guest
from kdumpy.vm.qemu import Disk, Hardware, Machine
from kdumpy.vm.targetdisk import DRIVERS, EXT

FILES = Path(__file__).parent / "guest_files"

PROGRAMS = ("sh", "mount", "rm", "sleep", "dd", "insmod", "tar")
"""What the guest's scripts call: busybox's, or this machine's where it has no busybox."""

FAULT_NAMES = ("sysrq", "nmi", "init-exit", "out-of-memory")
"""The laboratory's faults that need no driver of ours, so that they work with any kernel."""

HOOKS = "etc/kdumpy"


def fault_of(name: str, memory_mib: int) -> Fault:
    """Return a fault; the one that fills memory fills as much as this guest has."""
    from dataclasses import replace

    fault = FAULTS[name]
    if name == "out-of-memory":
        return replace(fault, trigger=f"dd if=/dev/zero of=/dev/null bs={memory_mib}M count=1")
    return fault


def build_initramfs(kernel: Path, capture: Path, recipe: str, path: Path) -> None:
    """Write the image that the first kernel boots from; it needs neither a disk nor a module.

    Raises:
        HostError: neither busybox nor the programs in its place are installed.
    """
    image = _with_shell()
    image.add_file("init", FILES / "rehearse-init", 0o755)
    image.add_file("bin/load-capture", loader.program(), 0o755)
    image.add_file("recipe", recipe)
    image.add_file("kernel", kernel)
    image.add_file("capture", capture)
    image.write(path, "none")       # most of it is packed already


def _with_shell() -> Initramfs:
    image = Initramfs()
    if programs.find("busybox"):
        image.add_program("busybox", at="bin/busybox")
        for name in PROGRAMS:
            image.archive.add_symlink(f"bin/{name}", "busybox")
        return image
    for name in PROGRAMS:
        image.add_program(name, at="bin/sh" if name == "sh" else None)
    return image


def recipe(fault: Fault, capture_cmdline: str, hostname: str) -> str:
    """Return the shell file that the guest's init reads."""
    settings = " ".join(f"{key.replace('.', '/')}={value}" for key, value in fault.sysctls.items())
    lines = [f"hostname={shlex.quote(hostname)}", f"capture_cmdline={shlex.quote(capture_cmdline)}",
             f"settings={shlex.quote(settings)}", f"as_init={'1' if fault.as_init else ''}",
             f"trigger() {{ {fault.commands()}; }}"]
    return "\n".join(lines) + "\n"


def overlaid(image: Path, files: Mapping[str, bytes], drivers: tuple[tuple[str, bytes], ...], path: Path) -> None:
    """Write an image with an archive behind it that holds the watch, drivers to insert first, and further files.

    Args:
        image: the capture image, which is copied as it is.
        files: by their path in the image.
        drivers: (name, contents) of modules in the order to insert them.
        path: where to write it.
    """
    over = Initramfs.empty()
    over.add_file(f"{HOOKS}/pre.d/50-rehearsal-watch", FILES / "watch", 0o755)
    over.add_file(f"{HOOKS}/post.d/50-rehearsal-watched", FILES / "watched", 0o755)
    if drivers:
        over.add_file(f"{HOOKS}/pre.d/10-rehearsal-drivers", FILES / "drivers", 0o755)
        for name, data in drivers:
            over.add_file(f"{HOOKS}/rehearsal/{name}", data)
        over.add_file(f"{HOOKS}/rehearsal/load-order", "".join(f"/{HOOKS}/rehearsal/{name}\n" for name, _ in drivers))
    for name, data in files.items():
        over.add_file(name, data, 0o600)
    with path.open("wb") as file:
        with image.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        file.write(bytes(-file.tell() % 4))     # the kernel looks for the next archive at a multiple of 4
        file.write(compressed(over.archive, "none"))


def drivers_of(tree: ModuleTree, names: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """Return modules with all that they need, in the order to insert them."""
    return tuple((file.name.split(".ko")[0] + ".ko", read_module(file)) for file in tree.closure(list(names)).files)


@dataclass(frozen=True)
class Collector:
    """Takes files off the guest's disk once it is powered off."""

    disk: Disk
    filesystem: str
    kernel: Path
    modules: ModuleTree

    def fetch(self, directory: str, target: Path) -> None:
        """Copy all files of a directory of the disk into `target`.

        Raises:
            LaboratoryError: it is not there.
        """
        target.mkdir(parents=True, exist_ok=True)
        if self.filesystem in EXT:
            # debugfs exits 0 whatever happens; as a user it cannot set owners, which does not matter.
            said = run(["debugfs", "-R", f'rdump "{directory}" "{target}"', str(self.disk.path)], "reading a disk")
            inside = target / Path(directory).name
            if not inside.is_dir():
                raise LaboratoryError("the guest did not leave its directory", where=directory, why=said.strip())
            for file in inside.iterdir():
                file.rename(target / file.name)
            inside.rmdir()
        else:
            self._by_guest(directory, target)

    def _by_guest(self, directory: str, target: Path) -> None:
        """Boot the kernel once more: it reads its own file systems."""
        work = target.parent
        image = _with_shell()
        image.add_file("init", FILES / "collect-init", 0o755)
        image.add_modules(self.modules, [*DRIVERS[self.disk.bus], self.filesystem])
        size = self.disk.path.stat().st_size
        packed = work / "collected.tar"
        with packed.open("wb") as file:
            file.truncate(size + (16 << 20))
        facts = {"filesystem": self.filesystem, "directory": directory, "from": size // 512, "to": size // 512 + 32768}
        image.add_file("recipe", "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in facts.items()))
        image.write(work / "collect", "none")
        hardware = Hardware(kernel=self.kernel, initrd=work / "collect", memory_mib=512, cpus=1,
                            cmdline=f"{bootparams.GUEST} panic=1 rdinit=/init",
                            disks=(self.disk, Disk(packed, "collected", self.disk.bus)))
        with room_for_a_guest(), Machine(hardware, work / "collect.log") as machine:
            machine.wait_for(r"^COLLECT done", 120, failures=("COLLECT failed", "Kernel panic"))
            machine.wait_end(30)
        with tarfile.open(packed) as archive:
            archive.extractall(target, filter="data")
        packed.unlink()

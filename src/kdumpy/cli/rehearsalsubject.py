"""What is rehearsed: this host's own kernel and image where it has one, else kdumpy's image for a named kernel."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdumpy.capture.config import render
from kdumpy.errors import HostError, KdumpyError, UsageError
from kdumpy.host import cmdline as host_cmdline
from kdumpy.host import crashkernel, crashstate, images, kernelfile, loading
from kdumpy.host.images import BuiltImage, layers
from kdumpy.host.images.needs import Needs
from kdumpy.host.kernelfile import KernelFile
from kdumpy.host.machine import Machine
from kdumpy.host.settings import Settings
from kdumpy.host.storage import find_device
from kdumpy.host.system import System
from kdumpy.image import capture
from kdumpy.image.modules import ModuleTree
from kdumpy.vm import bootparams, programs, standin
from kdumpy.vm.rehearsal import Subject
from kdumpy.vm.rehearsalguest import fault_of
from kdumpy.vm.targetdisk import DRIVERS, MAKERS, TargetDisk, reachable_bus

MIB = 1 << 20

DEFAULT = 256 * MIB
"""What is reserved for a kernel of another machine."""


@dataclass(frozen=True)
class Found:
    """What is rehearsed, and where it is from."""

    subject: Subject
    origin: str
    """host: this host's capture image; stand-in: kdumpy's own for a virtual disk."""
    installed: bool
    """It is a kernel of this host, so that the figures are worth keeping."""
    machine: Machine
    settings: Settings
    notes: tuple[str, ...]
    """What is not as on the host."""


@dataclass
class _Named:
    """A kernel that is to crash or to capture."""

    file: KernelFile
    path: Path
    """Where the file lies, the system's root in front."""
    modules: ModuleTree
    release: str


def subject_of(arguments: argparse.Namespace, work: Path, system: System, machine: Machine,
               settings: Settings) -> Found:
    """Return what the arguments ask for.

    Raises:
        UsageError: an argument is wrong.
        HostError: a kernel, its modules or a program is missing.
    """
    if arguments.kernel is not None:
        kernel = _given(arguments.kernel, arguments.modules)
        return _stand_in(arguments, work, machine, settings, kernel, DEFAULT, ())
    release = arguments.release or machine.release
    kernel = _installed(system, release)
    size = _of_host(system, machine, settings, current=release == machine.release)
    captures = _installed(system, arguments.release or loading.target_release(system, settings))
    notes: tuple[str, ...] = ()
    try:
        built = images.load(system, captures.release)
        if built is None:
            notes = ("this host has no capture image for this kernel (`kdumpy image` builds it)",)
        elif not os.access(system.path(images.path_of(captures.release)), os.R_OK):
            raise HostError("the capture image is root's")
    except HostError as error:
        built, notes = None, (f"this host's capture image cannot be read, {error.what}: run it as root",)
    if built is None:
        found = _stand_in(arguments, work, machine, settings, kernel, size, notes)
        return replace(found, installed=True)
    return _own(arguments, system, machine, settings, kernel, captures, built, size)


def _given(path: Path, modules: Path) -> _Named:
    """Return a kernel of two files that lie anywhere."""
    file = kernelfile.describe(System(), str(path.absolute()))
    if file.kind != "bzImage":
        raise HostError("not a kernel that an x86 machine boots", where=str(path), why="no bzImage header",
                        mend="name the vmlinuz, as it lies in /boot")
    directory = modules.resolve()
    if not (directory / "modules.dep").is_file():
        raise HostError("not a directory of a kernel's modules", where=str(modules), why="it has no modules.dep",
                        mend=f"name the one that is called {file.release}, or run depmod on it")
    if file.release and directory.name != file.release:
        raise HostError("the modules are of another kernel", where=str(modules),
                        why=f"the kernel is {file.release}", mend="name the directory of that name")
    return _Named(file, path.absolute(), ModuleTree(directory), file.release or directory.name)


def _installed(system: System, release: str) -> _Named:
    try:
        file = kernelfile.find(system, release)
    except HostError as error:
        raise HostError(error.what, where=error.where, why=error.why,
                        mend=f"name another one with --release, or its files with --kernel and --modules; or "
                             f"{error.mend}") from error
    for folder in (f"/lib/modules/{release}", f"/usr/lib/modules/{release}"):
        if system.exists(f"{folder}/modules.dep"):
            return _Named(file, system.path(file.path), ModuleTree(system.path(folder)), release)
    raise HostError("the kernel's modules are not installed", where=f"/lib/modules/{release}",
                    mend="install the kernel's package again")


def _of_host(system: System, machine: Machine, settings: Settings, *, current: bool) -> int:
    """Return the bytes that this host reserves, or will after `setup`."""
    there = crashstate.look(system).reserved if current else 0
    if there:
        return there
    advised = crashkernel.advise(machine, settings, None).value
    return crashkernel.size_for(advised, machine.memory_bytes) or DEFAULT


def _stand_in(arguments: argparse.Namespace, work: Path, machine: Machine, settings: Settings, kernel: _Named,
              size: int, notes: tuple[str, ...]) -> Found:
    """Rehearse with an image of kdumpy's own, for a disk that the guest has."""
    size = reserved(arguments, machine, settings, size)
    memory = guest_memory(arguments, size)
    image = standin.build(kernel.modules, work / "image", disk_mib=memory + 256, level=settings.capture.level,
                          compress=settings.capture.compress)
    running = machine.cmdline if arguments.kernel is None else ""
    text, _left = bootparams.crashed(running, size, fault_of(arguments.fault, memory).boot)
    subject = Subject(
        kernel=kernel.path, release=kernel.release, modules=kernel.modules, image=work / "image",
        unpacked=image.built.unpacked, cmdline=text, crashkernel=size, disk=image.disk, memory_mib=memory,
        capture_cmdline=bootparams.capture(host_cmdline.capture_cmdline(running, machine.architecture)),
        fault=fault_of(arguments.fault, memory))
    notes += ("the capture image is kdumpy's own for a virtual disk: this host's drivers and targets are not in it",)
    return Found(subject, "stand-in", installed=False, machine=machine, settings=settings, notes=notes)


@dataclass
class _Target:
    """Where the guest's capture saves to."""

    disk: TargetDisk
    overlay: dict[str, bytes] = field(default_factory=dict)
    drivers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _own(arguments: argparse.Namespace, system: System, machine: Machine, settings: Settings, kernel: _Named,
         captures: _Named, built: BuiltImage, size: int) -> Found:
    """Rehearse this host's own image, as it lies there."""
    notes: list[str] = []
    stale = images.stale(system, settings, captures.release)
    if stale:
        notes.append(f"the capture image is stale and rehearsed as it is: {stale} (`kdumpy image` builds it again)")
    size = reserved(arguments, machine, settings, size)
    memory = guest_memory(arguments, size)
    fault = fault_of(arguments.fault, memory)
    target = _target(system, settings, built, captures.modules, memory + 256)
    text, _left = bootparams.crashed(machine.cmdline, size, fault.boot)
    subject = Subject(
        kernel=kernel.path, release=kernel.release, modules=captures.modules,
        capture_kernel=captures.path, image=system.path(built.path), unpacked=built.unpacked,
        cmdline=text, crashkernel=size, memory_mib=memory, disk=target.disk, overlay=target.overlay,
        drivers=target.drivers, hostname=system.value("/proc/sys/kernel/hostname") or "rehearsal",
        capture_cmdline=bootparams.capture(loading.cmdline_for(system, settings, captures.file)), fault=fault)
    return Found(subject, "host", installed=True, machine=machine, settings=settings,
                 notes=(*notes, *target.notes))


def _target(system: System, settings: Settings, built: BuiltImage, modules: ModuleTree, mib: int) -> _Target:
    """Return a disk that stands for the first target: the same file system and UUID where that can be made."""
    needs = _needs(system, settings)
    notes: list[str] = []
    disk, why = _same_disk(system, built.targets[0], mib)
    overlay: dict[str, bytes] = {}
    if disk is None:
        notes.append(f"{built.targets[0]} cannot be rehearsed ({why}): a virtual disk takes its place, all else is as "
                     "in the image")
        config = replace(needs.config if needs else settings.capture, targets=(f"disk:UUID={standin.UUID}/crash",))
        text = render(config)
        overlay = {capture.CONFIG: text.encode(), capture.SETTINGS: capture.settings(text).encode()}
        if needs is not None and needs.network is not None:
            overlay["etc/kdumpy/network"] = b"#!/bin/sh\n# No network in a rehearsal.\n"
        disk = TargetDisk(mib, _filesystem(built.modules, modules), standin.UUID)
    if needs is not None and needs.layers:
        notes.append(f"the target lies on {', '.join(needs.layers)}, the guest's on a plain disk: they are not brought "
                     f"up{', and what opening it takes in memory is not measured' if built.unlock else ''}")
        overlay[layers.SCRIPT] = b"#!/bin/sh\n# No layers in a rehearsal: it would wait for them.\n"
    if settings.capture.encrypt:
        notes.append("the dump is encrypted: whether it is whole is taken from the capture's own words")
    inside = {*built.modules, *(name for name in _all_drivers() if _built_in(modules, name))}
    bus = reachable_bus(inside)
    missing: tuple[str, ...] = ()
    if bus is None:
        bus = reachable_bus(modules)
        if bus is None:
            raise HostError("the kernel reaches no disk of a virtual machine", where=str(modules.directory))
        missing += DRIVERS[bus]
        notes.append(f"the image's disk drivers are for hardware that QEMU does not have: {DRIVERS[bus][-1]} is added "
                     "to it")
    if disk.filesystem not in inside and not _built_in(modules, disk.filesystem):
        missing += (disk.filesystem,)
    return _Target(replace(disk, bus=bus), overlay, missing, tuple(notes))


def _needs(system: System, settings: Settings) -> Needs | None:
    try:
        return images.needs.look(system, settings)
    except KdumpyError:         # `status` and `image` say it; the image that is there is rehearsed all the same
        return None


def _same_disk(system: System, target: str, mib: int) -> tuple[TargetDisk | None, str]:
    """Return a disk like the target's; or None, and why not."""
    scheme, _, rest = target.partition(":")
    if scheme != "disk" or not rest.startswith(("UUID=", "LABEL=")):
        return None, "it is no file system on a disk"
    try:
        content = find_device(system, rest.split("/")[0]).content
    except HostError as error:
        return None, str(error)
    maker = MAKERS.get(content.kind)
    if maker is None:
        return None, f"{content.kind or 'its file system'} cannot be made here"
    if programs.find(maker[0]) is None:
        return None, f"{maker[0]} is not installed"
    return TargetDisk(mib, content.kind, content.uuid, content.label), ""


def _filesystem(inside: Collection[str], modules: ModuleTree) -> str:
    """Return a file system for a disk of our own: one that the image mounts, else one of the kernel's."""
    possible = [kind for kind, maker in MAKERS.items() if programs.find(maker[0])]
    for kind in possible:
        if kind in inside or _built_in(modules, kind):
            return kind
    for kind in possible:
        if modules.has(kind):
            return kind
    raise HostError("the kernel has no file system that can be made here", where=str(modules.directory),
                    mend="install e2fsprogs or xfsprogs")


def _all_drivers() -> set[str]:
    return {name for names in DRIVERS.values() for name in names}


def _built_in(modules: ModuleTree, name: str) -> bool:
    return modules.has(name) and bool(modules.closure([name]).builtin) and modules.path(name) is None


def reserved(arguments: argparse.Namespace, machine: Machine, settings: Settings, default: int) -> int:
    """Return the bytes to reserve: as asked, else as given.

    Raises:
        UsageError: it is not what the kernel takes.
    """
    text = arguments.crashkernel
    if not text:
        return default
    if text == "auto":
        text = crashkernel.advise(machine, replace(settings, crashkernel="auto"), None).value
    size = crashkernel.size_for(text, machine.memory_bytes)
    if size < MIB:
        raise UsageError("nothing would be reserved", where="--crashkernel", why=text,
                         mend="a size such as 192M; a range has to take in this host's memory")
    return size


def guest_memory(arguments: argparse.Namespace, size: int) -> int:
    """Return the guest's memory in MiB for a reservation of `size` bytes.

    Raises:
        UsageError: --memory is no size, or too small.
    """
    least = size // MIB + 320
    if not arguments.memory:
        return max(1024, -(-(2 * size // MIB + 384) // 128) * 128)
    match = re.fullmatch(r"(\d+)([MG]?)", arguments.memory.upper())
    if match is None:
        raise UsageError("not a size", where="--memory", why=arguments.memory, mend="such as 1024M or 2G")
    mib = int(match[1]) * (1024 if match[2] == "G" else 1)
    if mib < least:
        raise UsageError("the guest would have too little memory", where="--memory", why=f"{mib} MiB, of which "
                         f"{size // MIB} are reserved", mend=f"at least {least}M, or a smaller --crashkernel")
    return mib

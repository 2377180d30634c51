"""From a fresh server to one that saves its next crash: the plan of all that is to be changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdumpy.capture.targets import programs
from kdumpy.errors import HostError
from kdumpy.host import (
    applying,
    bootloaders,
    crashes,
    crashkernel,
    crashstate,
    images,
    kexec,
    need,
    packages,
    peers,
    services,
    settings,
    sysctls,
    wish,
)
from kdumpy.host import machine as machines
from kdumpy.host.changes import Change, Command, Plan, Step, write
from kdumpy.host.images.needs import NOT_CARRIED
from kdumpy.host.images.needs import look as look_at_needs
from kdumpy.host.machine import Machine
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.host.wish import Wishes

SERVERS = frozenset({"nfs", "ssh", "http", "https"})
"""Schemes of targets that are reached by the network."""

PROGRAM = "/usr/bin/kdumpy"
"""Where a package puts it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A plan and what it is for."""

    machine: Machine
    settings: Settings
    plan: Plan


def check(system: System, machine: Machine) -> None:
    """Refuse machines that cannot be armed.

    Raises:
        HostError: a container, or no systemd.
    """
    if machine.container:
        raise HostError("a container has no kernel of its own to arm", why=machine.container,
                        mend="run kdumpy on the host")
    if system.live and not system.exists("/run/systemd/system"):
        raise HostError("this system was not started by systemd", why="kdumpy.service loads the capture kernel at boot",
                        mend="run `kdumpy load` from your own init scripts, after local file systems are mounted")


def make(system: System, wishes: Wishes, program: str = "") -> Setup:
    """Return what is to be done; nothing is changed yet.

    Args:
        system: the machine.
        wishes: of the command line.
        program: how units call kdumpy; empty: as it was called itself.

    Raises:
        HostError: the machine cannot be armed, another kdump service is on, or a target cannot be reached.
        UsageError: the configuration, or a wish, is wrong.
    """
    machine = machines.look(system)
    check(system, machine)
    active = [peer for peer in peers.find(system) if peer.active is not False]
    if active and not wishes.replace:
        names = " and ".join(peer.name for peer in active)
        raise HostError("another service loads a capture kernel here", why=names,
                        mend="kdumpy setup --replace takes its settings over and switches it off; --undo gives it back")
    program = program or own_program(system)
    wanted, notes = wish.settings_for(system, wishes, active)
    lacking = packages.missing(system, _programs(machine, wanted))
    found, image = _targets(packages.Equipped(system, lacking), wanted, lacking, machine)
    loader = _loader(system)
    measured = need.measured(system, machine.release, images.load(system, machine.release))
    advice = crashkernel.advise(machine, wanted, measured,
                                next_cmdline=loader.next_cmdline(system), ours=applying.was_set_up(system),
                                image=image)
    install = packages.command(system, lacking)
    steps = [Step("Packages", tuple(_packages(system, lacking, install))),
             Step("Configuration", _configuration(system, wanted)),
             *(Step(f"Switch {peer.name} off", peer.disable()) for peer in active),
             Step(f"Reserve memory for the capture kernel: {crashkernel.spelled(advice.value)}",
                  _reserve(system, loader, advice), reboot=True),
             Step("When the kernel panics", sysctls.plan(system, wanted.panic)),
             Step("Services", services.plan(system, program, online=bool(_schemes(wanted) & SERVERS),
                                            folders=crashes.folders(wanted.capture))),
             _image(system, wanted, machine, program)]
    made = Plan(tuple(step for step in steps if step.changes),
                (f"{crashkernel.spelled(advice.value)}: {advice.why}", *found, *notes),
                (*advice.warnings, *_about(machine), *_not_packaged(system, lacking, install)))
    return Setup(machine, wanted, made)


def _reserve(system: System, loader: bootloaders.BootLoader, advice: crashkernel.Advice) -> tuple[Change, ...]:
    """Return the boot loader's changes, with the commands that an earlier setup did not come to."""
    changes = () if advice.keep else tuple(loader.plan(system, {"crashkernel": advice.value}))
    return (*changes, *(command for command in applying.unfinished(system) if command not in changes))


def own_program(system: System) -> str:
    """Return the path by which kdumpy is called from units."""
    if system.exists(PROGRAM) or not system.live:
        return PROGRAM
    called = Path(sys.argv[0])
    if called.name == "kdumpy" and called.is_file():
        return str(called.resolve())
    beside = Path(sys.executable).with_name("kdumpy")
    if beside.is_file():
        return str(beside)
    raise HostError("kdumpy is not installed as a program", where=sys.argv[0],
                    mend="install its package, or by pip into a virtual environment")


def _configuration(system: System, wanted: Settings) -> tuple[Change, ...]:
    text = system.read(settings.PATH)
    after = settings.render(wanted) if text is None else settings.update(text, wanted)
    # It may name tokens' and keys' files, not hold them; yet where dumps go is nobody else's business.
    changes: tuple[Change, ...] = write(system, settings.PATH, after, "the configuration", mode=0o600)
    for url in wanted.capture.targets:
        if url.startswith("/") and not system.exists(url):
            changes = (*changes, Command(("mkdir", "-p", "-m", "700", url), "dumps go there", makes=(url,)))
    return changes


def _schemes(wanted: Settings) -> set[str]:
    return {url.partition(":")[0] for url in wanted.capture.targets}


def _programs(machine: Machine, wanted: Settings) -> list[str]:
    """Return the programs of the system that loading, the image and its targets take."""
    schemes = _schemes(wanted)
    names = [name for name in programs(wanted.capture) if name not in NOT_CARRIED]
    if schemes & SERVERS:
        names.append("ip")
    if "ssh" in schemes:
        names.append("ssh-keygen")
    # A generator of the distribution brings a shell of its own.
    if wanted.image.builder == "builtin" or (wanted.image.builder == "auto"
                                             and machine.generator not in images.BUILDERS):
        names.append("busybox")
    if machine.architecture and not kexec.takes_files(machine.architecture):
        names.append("kexec")
    return names


def _packages(system: System, lacking: tuple[str, ...], install: tuple[str, ...]) -> Iterator[Command]:
    """Yield what installs the missing programs.

    That lists cannot be fetched (one of several archives does not answer) is told and stops nothing: the package may be
    in another one, or at hand.
    """
    if not install:
        return
    fetch, why = packages.refresh(system, time.time())
    if fetch:
        yield Command(fetch, why, seconds=900, may_fail=True)
    yield Command(install, f"missing: {', '.join(lacking)}", seconds=900)


def _not_packaged(system: System, lacking: tuple[str, ...], install: tuple[str, ...]) -> list[str]:
    if not lacking or install:
        old = packages.stale(system, time.time()) if install else ""
        return [old] if old else []
    return [f"{', '.join(lacking)} is not installed, and no package of this distribution is known to hold it: install "
            f"it before `kdumpy image`"]


def _targets(system: System, wanted: Settings, lacking: tuple[str, ...], machine: Machine) -> tuple[list[str], int]:
    """Find out now, before anything is changed, whether an image can reach the targets.

    Returns how, in words, and the bytes of memory that a capture kernel with such an image takes; 0: not known yet.
    """
    if not system.live:
        return [], 0
    blind = [name for name in ("ip", "ssh-keygen") if name in lacking]
    if blind:
        return [f"whether the image can reach the targets is seen when {' and '.join(blind)} is installed"], 0
    # What setup makes of a directory that is not there yet is on the file system above it.
    needs = look_at_needs(system, wanted)
    name, why = images.choose(system, wanted, needs)
    told = [f"capture image by {name}: {why}",
            *(f"target {told}: the capture kernel finds it as {found}"
              for told, found in zip(wanted.capture.targets, needs.config.targets, strict=True) if told != found),
            *(f"{lock.name} is encrypted: the capture image carries its key ({lock.key}), readable by root alone; "
              f"whoever gets at /var/lib/kdumpy or at the reserved memory has the key" for lock in needs.locks)]
    return told, images.need(system, wanted, wanted.image.kernel or machine.release, needs)


def _loader(system: System) -> bootloaders.BootLoader:
    loader = bootloaders.detect(system)
    if loader is None:
        raise HostError("no boot loader that is known was found",
                        why="crashkernel= has to be on the kernel's command line",
                        mend="add it by hand, then use `kdumpy image` and `kdumpy load`; docs/hosts.md names those "
                             "that are known")
    return loader


def _image(system: System, wanted: Settings, machine: Machine, program: str) -> Step:
    """Return the step that builds the image and, where memory is reserved already, loads it."""
    release = wanted.image.kernel or machine.release
    state = crashstate.look(system)
    stale = images.stale(system, wanted, release)
    changes: list[Change] = []
    if stale:
        changes.append(Command((program, "image"), f"the capture image: {stale}", seconds=services.LOAD_S))
    if state.reserved and (stale or not state.loaded):
        changes.append(Command(("systemctl", "restart", services.SERVICE), "load it now", seconds=services.LOAD_S,
                               undo=("systemctl", "stop", services.SERVICE), undo_first=True))
    return Step("Capture image", tuple(changes))


def _about(machine: Machine) -> list[str]:
    said = []
    if machine.secure_boot or machine.lockdown:
        said.append("secure boot or lockdown is on: only a signed kernel is taken as the capture kernel")
    if machine.memory_bytes and machine.memory_bytes < 512 << 20:
        said.append("this machine has less than 512 MiB of memory: a capture kernel takes a good part of it")
    return said

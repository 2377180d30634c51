"""The real crash: what is written down before it, so that it is known afterwards, and the crash itself."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass

from kdumpy.errors import HostError
from kdumpy.host.applying import prepare_home
from kdumpy.host.machine import container
from kdumpy.host.system import System

MARK = "/var/lib/kdumpy/test.json"
"""Of the last `kdumpy test`: a crash of that time was wanted."""

TRIGGER = "/proc/sysrq-trigger"


@dataclass(frozen=True, slots=True)
class Mark:
    """A test that was begun."""

    time: int
    """Seconds since 1970."""
    release: str
    boot_id: str
    """Of the boot that was ended by it."""


def read_mark(system: System) -> Mark | None:
    """Return the last test that was begun; None where there is none that can be read."""
    try:
        return Mark(**json.loads(system.read(MARK) or ""))
    except (ValueError, TypeError):
        return None


def write_mark(system: System) -> Mark:
    """Write down that this boot will be ended by a test."""
    prepare_home(system)
    mark = Mark(int(time.time()), system.value("/proc/sys/kernel/osrelease") or "",
                system.value("/proc/sys/kernel/random/boot_id") or "")
    descriptor = os.open(system.path(MARK), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(mark), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    return mark


def refuse_a_container(system: System) -> None:
    """Raise HostError in a container: it is its host that would crash, with all that runs there."""
    inside = container(system)
    if inside:
        raise HostError("a container is not crashed: the kernel is its host's", why=inside, mend="run it on the host")


def crash(system: System) -> None:
    """Crash this machine. What other processes have not written is lost; file systems are synchronised before.

    Writing to the trigger as root is let through whatever kernel.sysrq says (drivers/tty/sysrq.c,
    write_sysrq_trigger() calls __handle_sysrq() without its mask).

    Raises:
        HostError: the kernel does not take it, or it is not this system's own; then nothing has happened.
    """
    refuse_a_container(system)
    if not system.exists(TRIGGER):
        raise HostError("this kernel cannot be crashed by SysRq", where=TRIGGER, why="it was built without "
                        "CONFIG_MAGIC_SYSRQ", mend="kdumpy rehearse crashes the same kernel in a virtual machine")
    write_mark(system)
    os.sync()
    try:
        with system.path(TRIGGER).open("w") as file:
            file.write("c")
    except OSError as error:
        system.path(MARK).unlink(missing_ok=True)
        raise HostError("the kernel refused to crash", where=TRIGGER, why=error.strerror or str(error)) from error

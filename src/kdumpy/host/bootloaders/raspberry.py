"""The Raspberry Pi's firmware, which reads the kernel's command line from cmdline.txt.

Debian's raspi-firmware writes that file anew with each kernel, and adds /etc/default/raspi-extra-cmdline to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.host.bootloaders.files import changed, one_line
from kdumpy.host.bootloaders.parameters import edit
from kdumpy.host.changes import Change
from kdumpy.host.system import System

FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
EXTRA = "/etc/default/raspi-extra-cmdline"
HOOK = "/etc/kernel/postinst.d/z50-raspi-firmware"

WHY = "parameters that the firmware starts the kernel with"


class Raspberry:
    """cmdline.txt."""

    name = "raspberry"

    def next_cmdline(self, system: System) -> str | None:
        """Return the file's first line: the firmware reads no more."""
        path = _file(system)
        return (system.read(path) or "").split("\n", 1)[0].strip() if path else None

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes to cmdline.txt and to what is added to the next one."""
        path = _file(system)
        done = one_line(system, path, dict(parameters), WHY) if path else ()
        if not system.exists(HOOK):
            return done
        if system.exists(EXTRA):
            return (*done, *one_line(system, EXTRA, dict(parameters), WHY))
        text = ""
        for name, value in parameters.items():
            text = edit(text, name, value)
        return (*done, *(changed(system, EXTRA, text + "\n", WHY) if text else ()))


def _file(system: System) -> str | None:
    return next((path for path in FILES if system.exists(path)), None)


def detect(system: System) -> Raspberry | None:
    """Return it where the firmware's own configuration lies beside the file."""
    path = _file(system)
    return Raspberry() if path and system.exists(path.replace("cmdline.txt", "config.txt")) else None

"""Which distribution this is: os-release, its package manager, and what builds its initramfs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from kdumpy.host.system import System

PACKAGE_MANAGERS = (("apt", "apt-get"), ("dnf", "dnf"), ("zypper", "zypper"), ("pacman", "pacman"))
"""The manager's name here, and the program that tells it; zypper before dnf where both are, see `_manager`."""

GENERATORS = (("initramfs-tools", "mkinitramfs"), ("dracut", "dracut"), ("mkinitcpio", "mkinitcpio"))
"""What builds an initramfs, and its program. Debian's dracut ships an `update-initramfs`, too, so that is no sign."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What os-release says (os-release(5)), and the tools that go with it."""

    id: str
    """`debian`, `ubuntu`, `rhel`, `opensuse-tumbleweed` …; `linux` where nothing says it."""
    like: tuple[str, ...]
    """Whom it is made after (`debian`; `rhel`, `centos`, `fedora`), nearest first."""
    name: str
    """For people: `Debian GNU/Linux 12 (bookworm)`."""
    version: str
    """VERSION_ID; empty where it rolls."""
    package_manager: str | None
    """apt, dnf, zypper, pacman, or None."""
    generator: str | None
    """initramfs-tools, dracut, mkinitcpio, or None."""

    def family(self, *ids: str) -> bool:
        """Tell whether it is one of these or made after one."""
        return any(one in ids for one in (self.id, *self.like))


def of(system: System) -> Distribution:
    """Return the system's distribution; a tree without os-release is `linux`.

    Raises:
        HostError: os-release is there and cannot be read.
    """
    values: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):     # the first that is there counts alone
        text = system.read(path)
        if text is not None:
            values = os_release(text)
            break
    name = values.get("PRETTY_NAME") or values.get("NAME") or "Linux"
    like = tuple(values.get("ID_LIKE", "").split())
    return Distribution(id=values.get("ID") or "linux", like=like, name=name, version=values.get("VERSION_ID", ""),
                        package_manager=_manager(system, (values.get("ID", ""), *like)), generator=_generator(system))


def os_release(text: str) -> dict[str, str]:
    """Return the values of an os-release file; lines that are none are passed over, as its readers should.

    Source: os-release(5): quotes and escapes as in the shell, and no expansion of variables.
    """
    values = {}
    for line in text.splitlines():
        name, equals, rest = line.strip().partition("=")
        if not equals or not name.replace("_", "").isalnum():
            continue
        try:
            words = shlex.split(re.sub(r"\\([$`])", r"\1", rest))      # shlex knows these two escapes not
        except ValueError:              # an open quote
            continue
        values[name] = words[0] if words else ""
    return values


def _manager(system: System, ids: tuple[str, ...]) -> str | None:
    """Return the package manager; several may be installed (dnf on openSUSE, apt on Fedora), so the name leads."""
    own = {"debian": "apt", "ubuntu": "apt", "suse": "zypper", "opensuse": "zypper", "fedora": "dnf", "rhel": "dnf",
           "arch": "pacman"}
    programs = dict(PACKAGE_MANAGERS)
    for one in ids:
        manager = own.get(one)
        if manager and system.which(programs[manager]):
            return manager
    return next((name for name, program in PACKAGE_MANAGERS if system.which(program)), None)


def _generator(system: System) -> str | None:
    return next((name for name, program in GENERATORS if system.which(program)), None)

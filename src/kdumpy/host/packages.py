"""Programs that kdumpy calls or carries into the image, and the packages of each distribution that hold them."""

from __future__ import annotations

from collections.abc import Iterable

from kdumpy.host import distribution
from kdumpy.host.system import System

INSTALL = {"apt": ("apt-get", "install", "--yes", "--no-install-recommends"), "dnf": ("dnf", "install", "-y"),
           "zypper": ("zypper", "--non-interactive", "install"), "pacman": ("pacman", "-S", "--noconfirm", "--needed")}
"""A package manager → its command that installs without a question."""

OLD_S = 86400
"""Age of apt's lists from which on what they name may be gone from the archive: a security update takes the place of
the version before it."""

PACKAGES: dict[str, dict[str, str]] = {
    "age": dict.fromkeys(INSTALL, "age"),
    "busybox": dict.fromkeys(INSTALL, "busybox"),
    "gpg": {"apt": "gpg", "dnf": "gnupg2", "zypper": "gpg2", "pacman": "gnupg"},
    "ip": {"apt": "iproute2", "dnf": "iproute", "zypper": "iproute2", "pacman": "iproute2"},
    "kexec": dict.fromkeys(INSTALL, "kexec-tools"),
    "sendmail": dict.fromkeys(INSTALL, "postfix"),
    "ssh": {"apt": "openssh-client", "dnf": "openssh-clients", "zypper": "openssh-clients", "pacman": "openssh"},
    "ssh-keygen": {"apt": "openssh-client", "dnf": "openssh", "zypper": "openssh-common", "pacman": "openssh"},
}
"""A program → a package manager → the package. Source: packages.debian.org, packages.fedoraproject.org,
software.opensuse.org, archlinux.org/packages."""

LACKING = {"busybox": ("rhel", "centos")}
"""A program → distributions, and those made after them, whose own archives lack it."""


def missing(system: System, programs: Iterable[str]) -> tuple[str, ...]:
    """Return those programs that are not installed."""
    return tuple(name for name in dict.fromkeys(programs) if system.which(name) is None)


def package_of(system: System, program: str) -> str | None:
    """Return the package that holds a program here; None: this distribution has none, or it is not known."""
    here = distribution.of(system)
    if here.package_manager is None or here.family(*LACKING.get(program, ())):
        return None
    return PACKAGES.get(program, {}).get(here.package_manager)


def command(system: System, programs: Iterable[str]) -> tuple[str, ...]:
    """Return the command that installs programs.

    Returns:
        its words; empty where one of them is not known to the distribution.
    """
    manager = distribution.of(system).package_manager
    names = [package_of(system, program) for program in programs]
    if manager is None or not names or None in names:
        return ()
    return (*INSTALL[manager], *dict.fromkeys(name for name in names if name is not None))


def refresh(system: System, now: float) -> tuple[tuple[str, ...], str]:
    """Return the command that fetches the lists of packages where they are not there or old, and why; else nothing.

    dnf and zypper fetch them by themselves when they install. pacman is given lists only where there are none: newer
    ones without an upgrade of the whole system would mix versions (pacman(8), wiki.archlinux.org, "Partial upgrades
    are unsupported"); `stale` says so where they are old.
    """
    manager = distribution.of(system).package_manager
    if manager == "apt":
        if not system.glob("/var/lib/apt/lists/*_Packages*"):
            return ("apt-get", "update"), "the lists of packages are not there"
        if _age(system, ("/var/lib/apt/lists", "/var/lib/apt/lists/partial"), now) > OLD_S:
            return ("apt-get", "update"), "the lists of packages are old"
    if manager == "pacman" and not system.glob("/var/lib/pacman/sync/*.db"):
        return ("pacman", "-Sy", "--noconfirm"), "the lists of packages are not there"
    return (), ""


def stale(system: System, now: float) -> str:
    """Return what is to be said of lists of packages that are old and that setup does not fetch anew."""
    lists = tuple(system.glob("/var/lib/pacman/sync/*.db"))
    if distribution.of(system).package_manager != "pacman" or not lists or _age(system, lists, now) <= 7 * OLD_S:
        return ""
    return "pacman's lists of packages are older than a week: if it does not find a file, run `pacman -Syu` first"


def _age(system: System, names: tuple[str, ...], now: float) -> float:
    """Return the seconds since the newest of some files or directories was written to: apt sets files' own times."""
    return now - max((system.path(name).stat().st_mtime for name in names if system.exists(name)), default=0.0)


def advice(system: System, program: str) -> str:
    """Return what installs a program, for an error's mend: a command where the package is known."""
    return " ".join(command(system, (program,))) or f"install {program}"


class Equipped(System):
    """A system as it is after programs were installed: they are found where packages put them."""

    def __init__(self, system: System, programs: Iterable[str]) -> None:
        super().__init__(system.root)
        self._programs = frozenset(programs)

    def which(self, program: str) -> str | None:
        """Return a program's path without the root; one that will be installed is in /usr/bin."""
        return super().which(program) or (f"/usr/bin/{program}" if program in self._programs else None)

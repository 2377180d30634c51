"""Systems whose /usr and boot entries ostree keeps (Fedora CoreOS, Silverblue, image mode): rpm-ostree sets parameters.

It makes a new deployment with them; an entry that is edited by hand is lost with the next update.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdumpy.host.bootloaders import entries, parameters
from kdumpy.host.changes import Change, Command
from kdumpy.host.system import System

ENTRIES = "/boot/loader/entries"


class Ostree:
    """rpm-ostree's kernel arguments."""

    name = "ostree"

    def next_cmdline(self, system: System) -> str | None:
        """Return the options of the first entry: the newest deployment's."""
        found = entries.read(system, ENTRIES)
        return found[0].options if found else None

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return one command for all parameters, and one that takes all of it back."""
        do, undo = [], []
        for name, value in parameters.items():
            before, after = _words(self.next_cmdline(system) or "", name), _wanted(name, value)
            if before != after:
                do += [f"--delete={word}" for word in before] + [f"--append={word}" for word in after]
                undo += [f"--delete={word}" for word in after] + [f"--append={word}" for word in before]
        if not do:
            return ()
        return (Command(("rpm-ostree", "kargs", *do), "a deployment with the new parameters",
                        ("rpm-ostree", "kargs", *undo), seconds=1800),)


def _words(cmdline: str, name: str) -> list[str]:
    found = [word for word in parameters.words(cmdline) if word.name == name.replace("-", "_")]
    return [cmdline[word.start:word.end] for word in found]


def _wanted(name: str, value: str | None) -> list[str]:
    return [] if value is None else [parameters.spell(name, one) for one in parameters.each(name, value)]


def detect(system: System) -> Ostree | None:
    """Return it on a system that ostree booted."""
    return Ostree() if system.exists("/run/ostree-booted") and system.which("rpm-ostree") else None

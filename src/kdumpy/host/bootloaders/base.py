"""What every boot loader answers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kdumpy.host.changes import Change
from kdumpy.host.system import System


class BootLoader(Protocol):
    """One boot loader as it is set up on a system. `detect` of `kdumpy.host.bootloaders` finds it."""

    @property
    def name(self) -> str:
        """`grub`, `grub-bls`, `grub2-bls`, `systemd-boot`, `zipl`, `extlinux`, `ostree`, `raspberry`."""

    def next_cmdline(self, system: System) -> str | None:
        """Return the command line that the next boot will get, from the files that the loader itself reads.

        None: they do not tell. Parameters that the loader adds at boot (BOOT_IMAGE=, initrd=) are not in it.

        Raises:
            HostError: a file is there and cannot be read.
        """

    def plan(self, system: System, parameters: Mapping[str, str | None]) -> tuple[Change, ...]:
        """Return the changes after which every later boot has these parameters.

        Args:
            system: whose files are looked at; nothing is written.
            parameters: a kernel parameter's name and value; an empty value is the bare name, None removes it. A
                parameter that is there several times is there once afterwards, or as often as its value says
                (`parameters.SEVERAL`).

        Everything else in the files stays byte for byte. Nothing to do: no changes, not even the update command.

        Raises:
            HostError: a file cannot be edited safely; it says which, why, and what to do by hand.
        """

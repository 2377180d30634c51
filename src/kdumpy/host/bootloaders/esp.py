"""The partition that boot loaders share with the firmware, and what they leave in the firmware's variables."""

from __future__ import annotations

from kdumpy.errors import HostError
from kdumpy.host.system import System

PLACES = ("/efi", "/boot/efi", "/boot")
"""Where $BOOT and the EFI system partition are mounted. Source: UAPI.1, Boot Loader Specification, "The Partitions"."""

VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Of the variables of the Boot Loader Interface."""


def variable(system: System, name: str) -> str:
    """Return a text that a boot loader left in a variable of the firmware, or empty.

    Source: systemd, "The Boot Loader Interface": 4 bytes of attributes, then UTF-16.
    """
    try:
        data = system.read_bytes(f"/sys/firmware/efi/efivars/{name}-{VENDOR}")
    except HostError:
        return ""
    return (data or b"")[4:].decode("utf-16-le", errors="replace").rstrip("\0")


def entry_folders(system: System) -> list[str]:
    """Return the folders of boot loader entries that are there, each once: /efi may be a link to /boot."""
    found = {system.path(folder).resolve(): folder for place in reversed(PLACES)
             if system.exists(folder := f"{place}/loader/entries")}
    return list(reversed(found.values()))

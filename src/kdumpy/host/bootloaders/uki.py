"""Unified kernel images: a kernel, its initramfs and its command line in one EFI program.

Their command line is read here. It is changed by changing what it is made of and making the image anew, by whoever
makes it: mkinitcpio or kernel-install. A vendor's signed one cannot be changed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from kdumpy.errors import HostError
from kdumpy.host.bootloaders import parameters
from kdumpy.host.bootloaders.esp import PLACES
from kdumpy.host.bootloaders.files import changed, one_line, text_of
from kdumpy.host.changes import Change, Command, FileChange
from kdumpy.host.system import System

CMDLINE = "/etc/kernel/cmdline"
SNIPPETS = "/etc/cmdline.d/*.conf"

INSTALL_CONF = ("/etc/kernel/install.conf", "/usr/lib/kernel/install.conf")

WHY = "parameters of the kernel image"


def found(system: System) -> list[str]:
    """Return the images, the newest first."""
    from kdumpy.host.bootloaders.entries import newest_first

    return newest_first(path for place in PLACES for path in system.glob(f"{place}/EFI/Linux/*.efi"))


def cmdline_of(data: bytes, where: str) -> str | None:
    """Return the command line in an image; None: it has none.

    Args:
        data: the file, or its first megabytes: the command line lies before kernel and initramfs.
        where: its path, for errors.

    Source: Microsoft, "PE Format": COFF header and section table; UAPI.5, "Unified Kernel Image".

    Raises:
        HostError: it is no EFI program.
    """
    try:
        start = struct.unpack_from("<I", data, 0x3c)[0]
        magic, sections, optional = struct.unpack_from("<4s2xH12xH", data, start)
        if data[:2] != b"MZ" or magic != b"PE\0\0":
            raise HostError("this is no EFI program", where=where, why="its header is another")
        table = start + 24 + optional
        for number in range(sections):
            name, size, _address, raw_size, offset = struct.unpack_from("<8sIIII", data, table + 40 * number)
            if name.rstrip(b"\0") == b".cmdline":
                text = data[offset:offset + min(size, raw_size)]
                return text.split(b"\0", 1)[0].decode(errors="replace").strip()
    except struct.error as error:
        raise HostError("this is no EFI program", where=where, why=f"its header is cut short: {error}") from error
    return None


def plan(system: System, changes: Mapping[str, str | None]) -> tuple[Change, ...]:
    """Return the changes to what the images are made of, and the command that makes them anew.

    Raises:
        HostError: nobody here makes them.
    """
    done: list[FileChange] = []
    for name, value in changes.items():
        done += _set(system, name, value)
    return (*done, _rebuild(system)) if done else ()


def _set(system: System, name: str, value: str | None) -> tuple[FileChange, ...]:
    """Return the change that sets one parameter: where it stands, else in /etc/kernel/cmdline, else in a snippet.

    mkinitcpio takes both; without any the image has the line that the kernel was started with, which is then written
    down.
    """
    texts = {path: text for path in (CMDLINE, *system.glob(SNIPPETS)) if (text := text_of(system, path)) is not None}
    holding = [path for path, text in texts.items() if parameters.values(text, name)]
    if not texts and value is not None:
        current = next_cmdline(system)
        if current is None:
            raise HostError("the kernel image's command line is not known", where=CMDLINE,
                            mend=f"write the command line into {CMDLINE}, then run this again")
        return changed(system, CMDLINE, parameters.edit(current, name, value) + "\n", WHY)
    home = holding[-1] if holding else CMDLINE if CMDLINE in texts else next(reversed(texts), CMDLINE)
    return tuple(change for path in {*holding, home}
                 for change in one_line(system, path, {name: value if path == home else None}, WHY))


def next_cmdline(system: System, wanted: str = "") -> str | None:
    """Return the command line of the newest image, or of the one whose path is given."""
    images = [wanted] if wanted else found(system)
    for path in images:
        data = system.read_bytes(path)
        if data is not None:
            return cmdline_of(data, path)
    return None


def _rebuild(system: System) -> Command:
    why = "the kernel image with the new parameters"
    if system.which("mkinitcpio") and any(_presets(system)):
        return Command(("mkinitcpio", "-P"), why, ("mkinitcpio", "-P"), seconds=1800)
    if system.which("kernel-install") and any("layout=uki" in (system.read(path) or "").replace(" ", "").split()
                                              for path in INSTALL_CONF):
        return Command(("kernel-install", "add-all"), why, ("kernel-install", "add-all"), seconds=1800)
    image = next(iter(found(system)), "/EFI/Linux")
    raise HostError("the command line is inside of a kernel image, and nothing here makes that anew", where=image,
                    why="neither mkinitcpio's presets nor kernel-install (layout=uki) name it",
                    mend="set the parameter where the image is made, or add an addon (ukify build --cmdline=…)")


def _presets(system: System) -> list[str]:
    return [path for path in system.glob("/etc/mkinitcpio.d/*.preset")
            for line in (system.read(path) or "").splitlines()
            if "_uki=" in line and not line.lstrip().startswith("#")]

"""`dev`: devices; the requests of disks; what drivers left in the dump."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdumpy.crash.command import Arg, Command, Line, Options, columns
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError

_KIND = 0x700
"""NT_VMCOREDD. Source: include/uapi/linux/vmcore.h, struct vmcoredd_header."""
_NAME = 44
"""Bytes of dump_name in front of the data."""
_LINE = 16


@dataclass(frozen=True)
class DeviceDumpRow:
    """What a driver wrote into the dump."""

    index: int
    size: int
    """Bytes."""
    name: str
    """The driver's name for it."""


class Dev(Command[Any]):
    """Show devices and their drivers; with -V, what drivers left in the dump for their developers.

    Example:
        crash> dev
        CHRDEV    NAME                 CDEV        OPERATIONS
           1      mem            ff390e1a819bee80  memory_fops
    """

    names = ("dev",)
    example = "dev"
    row = Line
    args = (
        Arg("file", nargs="?", metavar="FILE", help="with -v: write it there"),
        Arg("-V", dest="dumps", action="store_true", help="the device dumps (of drivers, in ELF notes)"),
        Arg("-v", dest="index", metavar="INDEX", help="one of them, as bytes; or into FILE"),
        *(Arg(name, engine=True, help=f"{words} (drgn)") for name, words in {
            "-i": "I/O ports", "-p": "PCI devices", "-d": "disks with their requests in flight",
            "-D": "only disks that have some"}.items()),
    )

    def for_engine(self, words: Sequence[str]) -> bool:
        """Everything but device dumps is drgn's."""
        return "--help" not in words and not {"-V", "-v"} & set(words)

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield the device dumps, or the lines of one."""
        found = [note.data for note in session.kernel.dump.notes if note.kind == _KIND]
        if not found:
            raise NotInDump("no device dump is in this file",
                            why="drivers write them only where the kernel has CONFIG_PROC_VMCORE_DEVICE_DUMP, and not "
                                "with 'novmcoredd'")
        if options.index is None:
            for index, data in enumerate(found):
                yield DeviceDumpRow(index, len(data) - _NAME, _name(data))
            return
        if not options.index.isdecimal() or int(options.index) >= len(found):
            raise UsageError(f"there is no device dump {options.index}", mend="see 'dev -V'")
        data = found[int(options.index)][_NAME:]
        if options.file:
            Path(options.file).expanduser().write_bytes(data)
            yield Line(f"written to {options.file}: {len(data)} bytes")
            return
        for at in range(0, len(data), _LINE):
            part = data[at:at + _LINE]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            yield Line(f"{at:16x}:  {part.hex(' ', 8):<33}   {text}")

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the answer out as crash does."""
        if options.index is not None:
            yield from (row.line for row in rows)
        else:
            yield from columns(("INDEX", "SIZE", "NAME"),
                               ((str(row.index), f"{row.size:x}", row.name) for row in rows), "><<")


def _name(data: bytes) -> str:
    return data[:_NAME].partition(b"\0")[0].decode("utf-8", "backslashreplace")


COMMAND = Dev()

"""`wr`, `map`, `rustfilt`, `s390dbf`: what has no place here; each says why, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator

from kdumpy.crash.command import Arg, Line, Options, TextCommand
from kdumpy.crash.session import Session

_REASONS = {
    "wr": "wr changes the memory of a running kernel; a dump is evidence and is not changed.\n"
          "Instead: 'kdumpy shell VMCORE' has prog.add_memory_segment(), to try a value without writing it.",
    "rustfilt": "names of Rust are shown as the kernel has them; this shell does not take them apart.\n"
                "Instead: a program of that name: 'sym -l | rustfilt', or '!rustfilt NAME'.",
    "s390dbf": "s390dbf shows the debug feature of s390; dumps of s390 are not read here.\n"
               "Instead: crash on a machine of that kind.",
    "map": "map stores where the pages of a KVM dump (virsh dump, without --memory-only) lie in the file.\n"
           "Instead: nothing is needed; ELF and kdump files are read by their own tables.",
}


class Refused(TextCommand):
    """Say why a command of crash has no place here, and what to use instead: wr, map, rustfilt, s390dbf.

    Example:
        crash> wr jiffies 0
        wr changes the memory of a running kernel; a dump is evidence and is not changed.
    """

    names = ("wr", "map", "rustfilt", "s390dbf")
    example = "wr"
    args = (Arg("words", nargs="...", metavar="…", help="whatever crash takes"),)

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Yield the reason."""
        for line in _REASONS[options.command].split("\n"):
            yield Line(line)


COMMAND = Refused()

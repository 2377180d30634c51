"""`kmem`: what the memory was used for, page by page and object by object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.kmem.usage import UsageRow
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_VIEWS = {"info": "usage", "pages": "pages", "members": "pages", "slabs": "slabs", "slabs_all": "slabs",
          "slabs_root": "slabs", "free": "free", "free_pages": "free", "cached": "cached", "cached_pages": "cached",
          "vmalloc": "vmalloc", "counters": "counters", "nodes": "nodes", "zones": "zones", "offsets": "percpu",
          "huge": "hugepages", "flags": "flags", "address": "address"}
"""Which module of `kdumpy.crash.kmem` answers, by what is asked for; an address alone asks what lies there."""
_TAKE_ADDRESSES = ("pages", "members", "slabs", "slabs_all", "slabs_root", "free", "free_pages", "cached",
                   "cached_pages", "vmalloc", "info", "address")


class Kmem(Command[UsageRow]):
    """Show what the memory was used for: in all (-i), by page (-p), by slab cache (-s), by list of free pages (-f).

    Slabs are found by their struct pages and their lists of free objects followed, so what is corrupt is named below
    its cache, and not only met. Pages are read and sorted thousands at a time.

    Example:
        crash> kmem -i
                         PAGES        TOTAL      PERCENTAGE
            TOTAL MEM   102916       402 MB         ----
                 FREE    92982     363.2 MB    90% of TOTAL MEM
        crash> kmem -s task_struct
        CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME
        ff390e1a811ab800     8328         68        75     25    32k  task_struct
        crash> kmem ff26bcbcc11f4180
        CACHE             OBJSIZE  ALLOCATED     TOTAL  SLABS  SSIZE  NAME
        ff26bcbcc11ab600     8328         68        75     25    32k  task_struct
          SLAB              MEMORY            NODE  TOTAL  ALLOCATED  FREE
          ffe0c8bfc0047c00  ff26bcbcc11f0000     0      3          3     0
          FREE / [ALLOCATED]
          [ff26bcbcc11f4180]
        ...
    """

    names = ("kmem",)
    example = "kmem -i"
    row = UsageRow
    args = (
        Arg("addresses", nargs="*", metavar="ADDRESS|SLAB", help="a page (its struct page, a virtual or a physical "
            "address) for -p, -m, -f; a cache's name or an address for -s, -S; alone: what lies there"),
        Arg("-i", dest="info", action="store_true", help="free, used, cached, slab, huge pages, swap, committed"),
        Arg("-p", dest="pages", action="store_true", help="every page: mapping, index, count, flags"),
        Arg("-m", dest="members", metavar="MEMBER,…", help="every page, with these members of its struct page"),
        Arg("-s", dest="slabs", action="store_true", help="slab caches; the slab and object of an address"),
        Arg("-S", dest="slabs_all", action="store_true", help="slab caches with all slabs and objects; -S=CPU,…: "
            "of these CPUs' slabs, and of those with free objects that no CPU has"),
        Arg("-r", dest="slabs_root", action="store_true",
            help="caches with their children; kernels since 5.9 have none, so the same as -s"),
        Arg("-I", dest="ignored", metavar="SLAB,…", help="leave out these caches"),
        Arg("-f", dest="free", action="store_true", help="the lists of free pages, the CPUs' own too"),
        Arg("-F", dest="free_pages", action="store_true", help="the same with every block on them"),
        Arg("-c", dest="cached", action="store_true", help="the page cache by file, counted"),
        Arg("-C", dest="cached_pages", action="store_true", help="the same with every page"),
        Arg("-P", dest="physical", action="store_true", help="the address is physical"),
        Arg("-v", dest="vmalloc", action="store_true", help="the areas of vmalloc(); the one that an address is in"),
        Arg("-V", dest="counters", action="store_true", help="the counters of zones, nodes, events and NUMA"),
        Arg("-n", dest="nodes", action="store_true", help="nodes, sections and blocks of memory"),
        Arg("-z", dest="zones", action="store_true", help="zones: sizes, watermarks, counters"),
        Arg("-o", dest="offsets", action="store_true", help="the CPUs' offsets of per-CPU variables"),
        Arg("-h", dest="huge", action="store_true", help="the pools of huge pages"),
        Arg("-g", dest="flags", nargs="?", const="", metavar="FLAGS", help="the flags of pages, or those of a value"),
    )

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take -S=CPU,… apart: argparse knows no option whose value is there or not, and never the next word."""
        given = [word.partition("=")[2] for word in words if word.startswith("-S=")]
        options = super().parse(name, ["-S" if word.startswith("-S=") else word for word in words])
        options.cpus = given[-1] if given else None
        if options.slabs_all:           # -S shows all that -s does
            options.slabs = False
        return options

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield rows of what is asked for; each option has its own."""
        return iter(_view(session, options)[0])

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay them out as crash does."""
        lines: Iterator[str] = _view(session, options)[1](rows, session, options)
        return lines


def _view(session: Session, options: Options) -> tuple[Iterable[Any], Any]:
    """Return the rows and the layout of what is asked for.

    Raises:
        UsageError: nothing is, or too much.
    """
    asked = [name for name in _VIEWS if getattr(options, name, None) not in (False, None)]
    if len(asked) > 1 or not (asked or options.addresses):
        raise UsageError("one option at a time" if asked else "what of the memory?", where="kmem",
                         mend="kmem -i is a good start; see 'help kmem'")
    name = asked[0] if asked else "address"
    if options.addresses and name not in _TAKE_ADDRESSES:
        raise UsageError("this option takes no address", where=f"kmem {options.typed}", mend="see 'help kmem'")
    if options.physical and options.addresses:
        options.addresses = [f"{session.address(text) & (1 << 52) - 1:x}" for text in options.addresses]
    module = _module(_VIEWS[name])
    if name == "members":
        return module.member_rows(session, options), module.render_members
    return module.rows(session, options), module.render


def _module(name: str) -> ModuleType:
    return import_module(f"kdumpy.crash.kmem.{name}")


COMMAND = Kmem()

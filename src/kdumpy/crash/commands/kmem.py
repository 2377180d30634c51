"""`kmem`: what the memory was used for, page by page and object by object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.kmem import usage
from kdumpy.crash.kmem.usage import UsageRow
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_OWN = frozenset("ipmsSrfFcCPI")
"""Options that are answered here; the others are drgn's."""


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
        Arg("-S", dest="slabs_all", action="store_true", help="slab caches with all slabs and objects"),
        Arg("-r", dest="slabs_root", action="store_true",
            help="caches with their children; kernels since 5.9 have none, so the same as -s"),
        Arg("-I", dest="ignored", metavar="SLAB,…", help="leave out these caches"),
        Arg("-f", dest="free", action="store_true", help="the lists of free pages, the CPUs' own too"),
        Arg("-F", dest="free_pages", action="store_true", help="the same with every block on them"),
        Arg("-c", dest="cached", action="store_true", help="the page cache by file, counted"),
        Arg("-C", dest="cached_pages", action="store_true", help="the same with every page"),
        Arg("-P", dest="physical", action="store_true", help="the address is physical"),
        *(Arg(name, engine=True, help=f"{words} (drgn)") for name, words in {
            "-v": "vmalloc's areas", "-V": "the counters of vmstat", "-n": "nodes and memory blocks", "-z": "zones",
            "-o": "per-CPU offsets", "-h": "huge pages", "-g": "page flags in words"}.items()),
    )

    def for_engine(self, words: Sequence[str]) -> bool:
        """Give drgn its options, and an address alone."""
        options = {word[1] for word in words if word.startswith("-") and len(word) > 1}
        return bool(words) and "--help" not in words and not options & _OWN

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
    asked = [name for name in ("info", "pages", "members", "slabs", "slabs_all", "slabs_root", "free", "free_pages",
                               "cached", "cached_pages") if getattr(options, name)]
    if len(asked) != 1 and not (options.physical and not asked):
        raise UsageError("one option at a time" if asked else "what of the memory?", where="kmem",
                         mend="kmem -i is a good start; see 'help kmem'")
    if options.physical and options.addresses:
        options.addresses = [f"{session.address(text) & (1 << 52) - 1:x}" for text in options.addresses]
    name = asked[0] if asked else "pages"
    if name == "info":
        return usage.rows(session, options), usage.render
    if name == "members":
        pages = _module("pages")
        return pages.member_rows(session, options), pages.render_members
    module = _module({"pages": "pages", "free": "free", "free_pages": "free", "cached": "cached",
                      "cached_pages": "cached"}.get(name, "slabs"))
    return module.rows(session, options), module.render


def _module(name: str) -> ModuleType:
    return import_module(f"kdumpy.crash.kmem.{name}")


COMMAND = Kmem()

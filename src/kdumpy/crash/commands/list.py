"""`list`: linked lists; drgn's command, with the options that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import find_type, offset_of, struct_text
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

_DUPLICATE = "list: duplicate list entry:"
"""What drgn's command, and crash, write where a list comes back to an entry that it has had."""

_WITH_VALUE = ("-o", "-e", "-s", "-S", "-l", "-O")


@dataclass(frozen=True)
class EntryRow:
    """An entry of a list."""

    address: int
    text: str
    """What lies there, as asked for with -s; else empty."""


class ListCommand(Command[EntryRow]):
    """Follow a linked list. A list that runs in a circle, or leads to where no memory is, ends with where and why.

    Every entry is remembered, so that a circle is found where it closes; -B, crash's way without a memory, is taken
    and changes nothing.

    Example:
        crash> list -H modules -l module.list -s module.name
        ffffffffc05a51c8
          name = "flaky"
    """

    names = ("list",)
    example = "list -H modules"
    row = EntryRow
    args = (
        Arg("words", nargs="...", metavar="[[-o] OFFSET] [-e END] [-s|-S STRUCT.MEMBER [-l OFFSET]] [-r] "
            "[-x|-d] [-h [-O OFFSET]|-H] START", help="as in crash: OFFSET in bytes or STRUCT.MEMBER"),
    )

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take every word: drgn's command reads them."""
        return Options(words=_ordered([word for word in words if word not in ("-B", "--json")]), json="--json" in words,
                       help=False)

    def rows(self, session: Session, options: Options) -> Iterator[EntryRow]:
        """Yield the entries that drgn's command finds, those before a failure too.

        Raises:
            DamagedDump: the list has no proper end.
        """
        words, shown = _without_struct(options.words)
        if words and not words[-1].startswith("-"):
            start = session.address(words[-1])
            words = [*words[:-1], f"{start:x}"]
        structs = [(find_type(session, name.partition(".")[0]),
                    [member for member in name.partition(".")[2].split(",") if member]) for name in shown]
        within = offset_of(session, words[words.index("-l") + 1]) if structs and "-l" in words[:-1] else 0
        radix = 16 if "-x" in words else 10 if "-d" in words else None
        if words and not words[-1].startswith("-"):
            session.prog.read_u64(start + offset_of(session, _offset(words)))       # else it is no entry
        count, last = 0, 0
        for line in session.engine.lines(" ".join(("list", *_without_offset(words, not structs)))):
            if line.startswith(_DUPLICATE):
                raise DamagedDump("the list runs in a circle", where=f"address {line.removeprefix(_DUPLICATE).strip()}",
                                  why=f"after {count} entries")
            if not re.fullmatch(r"[0-9a-f]+", line):
                continue
            count, last = count + 1, int(line, 16)
            try:
                text = "\n".join(struct_text(session, drgn.Object(session.prog, made, address=last - within), members,
                                             radix) for made, members in structs)
            except READ_ERRORS:
                yield EntryRow(last, "")
                raise
            yield EntryRow(last, text)
        if count:
            _closes(session, words, last, count)

    def render(self, rows: Iterable[EntryRow], session: Session, options: Options) -> Iterator[str]:
        """Yield the addresses, each above what lies there."""
        for row in rows:
            yield f"{row.address:x}"
            if row.text:
                yield row.text


def _without_struct(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words without every -s STRUCT, and those."""
    rest, shown = list[str](), list[str]()
    given = iter(words)
    for word in given:
        structure = next(given, None) if word in ("-s", "-S") else None
        if structure is None:
            rest.append(word)
        else:
            shown.append(structure)
    return rest, shown


def _without_offset(words: list[str], keep: bool) -> list[str]:
    """Return the words without -l OFFSET, which drgn's command takes only beside -s."""
    if keep or "-l" not in words[:-1]:
        return words
    at = words.index("-l")
    return words[:at] + words[at + 2:]


_MEMBER = re.compile(r"[A-Za-z_]\w*\.\S+")
"""STRUCT.MEMBER"""


def _ordered(words: list[str]) -> list[str]:
    """Put options first, as drgn's command wants them; crash lets them stand anywhere."""
    options, others = list[str](), list[str]()
    taken = False
    for word in words:
        if taken or (word.startswith("-") and len(word) > 1):
            options.append(word)
            taken = not taken and word in _WITH_VALUE
        else:
            others.append(word)
    if len(others) == 2:        # `[-o] OFFSET START`, in either order
        if _MEMBER.fullmatch(others[1]) and not _MEMBER.fullmatch(others[0]):
            others.reverse()
        return [*options, "-o", *others]
    return [*options, *others]


def _offset(words: list[str]) -> str:
    return words[words.index("-o") + 1] if "-o" in words[:-1] else ""


def _closes(session: Session, words: list[str], last: int, count: int) -> None:
    """Check that a list with a head (-H) ends at its head.

    crash and drgn end a list where it comes back to one of its first entries, which hides a list that was torn.

    Raises:
        DamagedDump: it does not.
    """
    if "-H" not in words or "-e" in words:
        return
    try:
        head = session.address(words[-1])
        following = session.prog.read_u64(last + offset_of(session, _offset(words)) + (8 if "-r" in words else 0))
    except READ_ERRORS:
        return          # where the list lies cannot be told: drgn's command has spoken
    if following != head and following:
        raise DamagedDump("the list runs in a circle that leaves its head out", where=f"address {following:016x}",
                          why=f"after {count} entries")


COMMAND = ListCommand()

"""`list`: linked lists; drgn's command, with the options that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import drgn

from kdumpy.crash.command import Arg, Line, Options, TextCommand
from kdumpy.crash.commands.struct import find_type, offset_of, struct_text
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump

_DUPLICATE = "list: duplicate list entry:"
"""What drgn's command, and crash, write where a list comes back to an entry that it has had."""

_WITH_VALUE = ("-o", "-e", "-s", "-S", "-l", "-O")


class ListCommand(TextCommand):
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
    args = (
        Arg("words", nargs="...", metavar="[[-o] OFFSET] [-e END] [-s|-S STRUCT.MEMBER [-l OFFSET]] [-r] "
            "[-h [-O OFFSET]|-H] START", help="as in crash: OFFSET in bytes or STRUCT.MEMBER"),
    )

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take every word: drgn's command reads them."""
        return Options(words=_ordered([word for word in words if word not in ("-B", "--json")]), json="--json" in words,
                       help=False)

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Yield the lines as drgn's command writes them, those before a failure too."""
        count = 0
        last: int | None = None
        words, shown = _without_struct(options.words)
        name, _, names = (shown or "").partition(".")
        made = find_type(session, name) if name else None
        members = [member for member in names.split(",") if member]
        within = offset_of(session, words[words.index("-l") + 1]) if made is not None and "-l" in words[:-1] else 0
        radix = 16 if "-x" in words else 10 if "-d" in words else None
        for line in session.engine.lines(" ".join(("list", *_without_offset(words, made is None)))):
            if line.startswith(_DUPLICATE):
                raise DamagedDump("the list runs in a circle", where=f"address {line.removeprefix(_DUPLICATE).strip()}",
                                  why=f"after {count} entries")
            if not line:
                continue
            if re.fullmatch(r"[0-9a-f]+", line):
                count, last = count + 1, int(line, 16)
            yield Line(line)
            if made is not None and last is not None:
                value = drgn.Object(session.prog, made, address=last - within)
                yield from map(Line, struct_text(session, value, members, radix).split("\n"))
        if last is not None:
            _closes(session, options.words, last, count)


def _without_struct(words: list[str]) -> tuple[list[str], str | None]:
    """Return the words without -s STRUCT, and that."""
    for name in ("-s", "-S"):
        if name in words[:-1]:
            at = words.index(name)
            return words[:at] + words[at + 2:], words[at + 1]
    return words, None


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


def _closes(session: Session, words: list[str], last: int, count: int) -> None:
    """Check that a list with a head (-H) ends at its head.

    crash and drgn end a list where it comes back to one of its first entries, which hides a list that was torn.

    Raises:
        DamagedDump: it does not.
    """
    if "-H" not in words or "-e" in words:
        return
    offset = words[words.index("-o") + 1] if "-o" in words[:-1] else ""
    try:
        head = session.address(words[-1])
        following = session.prog.read_u64(last + offset_of(session, offset) + (8 if "-r" in words else 0))
    except READ_ERRORS:
        return          # where the list lies cannot be told: drgn's command has spoken
    if following != head and following:
        raise DamagedDump("the list runs in a circle that leaves its head out", where=f"address {following:016x}",
                          why=f"after {count} entries")


COMMAND = ListCommand()

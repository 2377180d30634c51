"""`gdb`, `x`, `info`: what crash hands on to gdb, answered by our own commands.

Source: gdb's documentation, "Examining Memory" and "Examining the Symbol Table".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kdumpy.crash import registry
from kdumpy.crash.command import Arg, Line, Options, TextCommand
from kdumpy.crash.expression import address_of, evaluate
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError

_REASON = ("there is no gdb in this shell: it would need the kernel's DWARF, and types come out of the dump.\n"
           "Instead: 'p' and 'print', 'output', 'p/x'; 'ptype' and 'whatis'; 'x/3i', 'x/4gx', 'x/s'; 'info symbol', "
           "'info line';\n'struct', 'list', 'dis', 'rd'; or 'kdumpy shell VMCORE' for Python.")
_SIZES = {"b": 8, "h": 16, "w": 32, "g": 64}
_OTHERWISE = ("gdb", "list", "search", "set")
"""Commands of ours whose names mean another thing to gdb."""
_INFO = {"symbol": "sym", "address": "sym", "line": "sym", "functions": "sym -q", "variables": "sym -q"}
"""Our command for a word behind `info`."""


class Gdb(TextCommand):
    """Answer what crash hands on to gdb: `gdb COMMAND`, `x/FORMAT ADDRESS`, `info symbol|line|address WHAT`.

    `x` takes gdb's format: a count, then i (instructions), s (text), or x, d, u, a with b, h, w, g for the size of a
    unit. print, output, p/x, ptype, disassemble are there without `gdb` in front too. The rest of gdb is not here.

    Example:
        crash> gdb print nr_cpu_ids
        nr_cpu_ids = $1 = 2
        crash> x/2i schedule
        0xffffffffaa4114f0 <schedule>:	endbr64
        0xffffffffaa4114f4 <schedule+4>:	nopl   (%rax,%rax)
    """

    names = ("gdb", "x", "info")
    example = "gdb print nr_cpu_ids"
    args = (
        Arg("--format", dest="letters", metavar="FORMAT", help="what x/FORMAT is short for"),
        Arg("words", nargs="...", metavar="COMMAND|ADDRESS|WHAT", help="what gdb is asked"),
    )

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take every word but --json: what follows is another command's."""
        options = super().parse(name, [word for word in words if word != "--json"])
        options.json = "--json" in words
        return options

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Yield the lines of our command that answers this, or the reason why none does.

        Raises:
            UsageError: it is not understood.
        """
        if options.command == "gdb":
            line = _known(re.sub(r"(?<!\S)--json(?!\S)", "", options.typed).strip())
        elif options.command == "x":
            line = _examine(session, " ".join(options.words), options.letters or "x")
        else:
            word, *what = options.words or [""]
            line = f"{_INFO[word]} {' '.join(what)}" if word in _INFO and what else ""
        if not line:
            yield from map(Line, _REASON.split("\n"))
            return
        answer = session.answer(line)
        yield from map(Line, answer.render(answer.rows))


def _known(text: str) -> str:
    """Return what follows the word `gdb` where it is a command of ours, or one that stands for gdb's; else empty."""
    word = text.split(None, 1)[0] if text else ""
    known = (word in registry.COMMANDS and word not in _OTHERWISE) or registry.meaning(word) is not None
    return text if known else ""


def _address(session: Session, text: str) -> int:
    """Return where an expression lies; a symbol, or SYMBOL+OFFSET, needs no type for that.

    Raises:
        UsageError: it is no address.
    """
    try:
        return address_of(evaluate(session, text))
    except TypeError:
        raise UsageError(f"{text!r} is no address", where="x") from None
    except NotInDump:
        match = re.fullmatch(r"&?([A-Za-z_]\w*)(\s*\+\s*\w+)?", text)
        if not match or not session.prog.symbols(match[1]):
            raise
        return session.address(f"({text})")


def _examine(session: Session, text: str, letters: str) -> str:
    match = re.fullmatch(r"(\d{0,6})([a-z]*)", letters)
    if not match or set(match[2]) - set("isxduazbhwg"):
        raise UsageError(f"{letters!r} is no format", where="x", mend="such as x/3i, x/4gx, x/s")
    if not text:
        raise UsageError("which address?", where="x", mend="see 'help x'")
    address = _address(session, text)
    count = match[1] or "1"
    if "i" in match[2]:
        return f"dis {address:x} {count}"
    if "s" in match[2]:
        return f"rd -a {address:x}"
    bits = next((_SIZES[letter] for letter in match[2] if letter in _SIZES), 64 if "a" in match[2] else 32)
    shown = "-d" if "d" in match[2] else "-D" if "u" in match[2] else "-s" if "a" in match[2] else "-x"
    return f"rd -{bits} {shown} {address:x} {count}"


COMMAND = Gdb()

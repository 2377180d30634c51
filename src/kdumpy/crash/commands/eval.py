"""`eval`: a number, or what comes out of some, in every base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.numbers import WORD, number
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9_.$]+)|(?P<sign><<|>>|[-+*/%&|^~#()]))")
_OPTION = re.compile(r"--[a-z][a-z-]*")
"""--json, and what is none."""
_LONGEST = 4096
_DEEPEST = 50
_BITS_LINE = 77
"""Columns after which crash begins another line of bits."""


def _shifted(left: int, right: int) -> int:
    return left << right if right < 64 else 0


def _divided(left: int, right: int) -> int:
    if not right:
        raise UsageError("a division by zero", where="eval")
    return left // right


def _rest(left: int, right: int) -> int:
    return left - _divided(left, right) * right


_OPERATORS: dict[str, tuple[int, Callable[[int, int], int]]] = {
    "|": (1, lambda a, b: a | b), "^": (2, lambda a, b: a ^ b), "&": (3, lambda a, b: a & b),
    "<<": (4, _shifted), ">>": (4, lambda a, b: a >> b if b < 64 else 0),
    "+": (5, lambda a, b: a + b), "-": (5, lambda a, b: a - b),
    "*": (6, lambda a, b: a * b), "/": (6, _divided), "%": (6, _rest),
    "#": (7, lambda a, b: pow(a, b, WORD + 1)),
}  # fmt: skip
"""Precedence, that of C, and meaning; # is crash's sign for a power. Numbers have 64 bits and no sign."""


@dataclass(frozen=True)
class NumberRow:
    """A number."""

    value: int
    """Without sign."""
    signed: int
    """With one."""
    hexadecimal: str
    octal: str
    binary: str
    """64 digits."""
    size: str
    """As KB, MB or GB, where it is a multiple of one; or empty."""
    bits: tuple[int, ...]
    """The bits that are set, the highest first."""


class Eval(Command[NumberRow]):
    """Show a number, or what an expression of numbers and symbols comes to, in hexadecimal, decimal, octal and binary.

    Numbers are decimal, or hexadecimal with 0x or where they have a letter; k, m and g stand for their powers. The
    operators are + - * / % & | ^ ~ << >> and # (a power), with C's precedence; brackets or quotes keep the shell from
    taking a | or a > for its own.

    Example:
        crash> eval (1 << 32)
        hexadecimal: 100000000  (4GB)
            decimal: 4294967296
              octal: 40000000000
             binary: 0000000000000000000000000000000100000000000000000000000000000000
    """

    names = ("eval",)
    example = "eval 0x1000 * 3"
    row = NumberRow
    args = (
        Arg("-b", dest="show_bits", action="store_true", help="the numbers of the bits that are set too"),
        Arg("-l", dest="long", action="store_true", help="64 bits; all numbers have them here"),
        Arg("words", nargs="*", metavar="EXPRESSION", help="numbers, symbols, operators"),
    )

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Return the arguments of a call: options stand in front, for what follows can begin with a minus."""
        mine = [word for word in words if _OPTION.fullmatch(word)]
        rest = [word for word in words if not _OPTION.fullmatch(word)]
        while rest and re.fullmatch(r"-[bl]+", rest[0]) and len(rest) > 1:
            mine.append(rest.pop(0))
        options = super().parse(name, mine)
        options.words = rest
        if not rest:
            raise UsageError("an expression is wanted", where=name, mend=f"see 'help {name}'")
        return options

    def rows(self, session: Session, options: Options) -> Iterator[NumberRow]:
        """Yield the number.

        Raises:
            UsageError: the expression is none.
        """
        value = _Expression(session, " ".join(options.words)).value()
        size = next((f"{value >> shift}{unit}" for shift, unit in ((30, "GB"), (20, "MB"), (10, "KB"))
                     if value and not value & (1 << shift) - 1), "")
        yield NumberRow(value, value - (value >> 63 << 64), f"{value:x}", f"{value:o}", f"{value:064b}", size,
                        tuple(bit for bit in reversed(range(64)) if value >> bit & 1))

    def render(self, rows: Iterable[NumberRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the number out as crash does."""
        for row in rows:
            yield f"hexadecimal: {row.hexadecimal}  {f'({row.size})' if row.size else ''}".rstrip()
            yield f"    decimal: {row.value}  {f'({row.signed})' if row.signed < 0 else ''}".rstrip()
            yield f"      octal: {row.octal}"
            yield f"     binary: {row.binary}"
            if options.show_bits:
                yield from _bit_lines(row.bits)


def _bit_lines(bits: tuple[int, ...]) -> Iterator[str]:
    line = "   bits set: "
    for bit in bits:
        line += f"{bit} "
        if len(line) >= _BITS_LINE:
            yield line.rstrip()
            line = " " * len("   bits set: ")
    if line.strip():
        yield line.rstrip()


class _Expression:
    """Evaluates an expression of numbers of 64 bits."""

    def __init__(self, session: Session, text: str) -> None:
        if len(text) > _LONGEST:
            raise UsageError("the expression is too long", where="eval")
        self.session, self.text = session, text
        self.tokens: list[str] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise UsageError(f"{text[position:].strip()[:20]!r} does not belong into an expression", where="eval")
            self.tokens.append(match["word"] or match["sign"])
            position = match.end()
        self.at = self.depth = 0

    def value(self) -> int:
        found = self._binary(0)
        if self.at < len(self.tokens):
            raise UsageError(f"{self.tokens[self.at]!r} was not expected", where=self.text)
        return found & WORD

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _binary(self, least: int) -> int:
        left = self._unary()
        while self._peek() in _OPERATORS and _OPERATORS[self._peek()][0] >= least:
            precedence, meaning = _OPERATORS[self._peek()]
            self.at += 1
            left = meaning(left, self._binary(precedence + 1)) & WORD
        return left

    def _unary(self) -> int:
        token = self._peek()
        self.at += 1
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UsageError("the expression goes too deep", where="eval")
        if token in ("-", "~", "+"):
            inner = self._unary()
            found = -inner if token == "-" else ~inner if token == "~" else inner
        elif token == "(":
            found = self._binary(0)
            if self._peek() != ")":
                raise UsageError("')' was expected", where=self.text)
            self.at += 1
        elif not token or token in _OPERATORS or token == ")":
            raise UsageError(f"a number was expected, not {token or 'the end'!r}", where=self.text)
        else:
            found = self._word(token)
        self.depth -= 1
        return found & WORD

    def _word(self, text: str) -> int:
        """Return a number, or the address of a symbol; a name that is both is the symbol's, as crash reads it."""
        if not text[0].isdecimal() and self.session.prog.symbols(text):
            return int(self.session.prog.symbol(text).address)
        try:
            return number(text)
        except UsageError as error:
            raise UsageError(error.what if text[0].isdecimal() else f"{text!r} is neither a number nor a symbol",
                             where=self.text) from None


COMMAND = Eval()

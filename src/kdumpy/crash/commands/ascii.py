"""`ascii`: the characters in numbers, and the table of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.numbers import hexadecimal
from kdumpy.crash.session import Session

_CONTROLS = (
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI",
    "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
)  # fmt: skip
_DELETE = 0x7f


@dataclass(frozen=True)
class AsciiRow:
    """A number and its characters; of the table, a character."""

    value: int
    text: str
    """From the lowest byte up, as they lie in memory; <NUL> and the like for what cannot be shown."""


class Ascii(Command[AsciiRow]):
    """Show the characters in hexadecimal numbers, as they lie in memory; without a number, the table of ASCII.

    Example:
        crash> ascii 62696c2f7273752f
        62696c2f7273752f: /usr/lib
    """

    names = ("ascii",)
    example = "ascii 62696c2f7273752f"
    row = AsciiRow
    args = (Arg("values", nargs="*", metavar="VALUE", help="up to 8 bytes, hexadecimal"),)

    def rows(self, session: Session, options: Options) -> Iterator[AsciiRow]:
        """Yield a row a value, or one a character.

        Raises:
            UsageError: one is no number.
        """
        if not options.values:
            yield from (AsciiRow(code, _name(code)) for code in range(_DELETE + 1))
        for text in options.values:
            value = hexadecimal(text)
            yield AsciiRow(value, "".join(map(_shown, value.to_bytes(8, "little"))))

    def render(self, rows: Iterable[AsciiRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the values, or the table, out as crash does."""
        if options.values:
            yield from (f"{row.value:016x}: {row.text}" for row in rows)
            return
        names = {row.value: row.text for row in rows}
        yield from ("", "      0    1   2   3   4   5   6   7", "    +-------------------------------")
        for low in range(16):
            first, second, *others = (names.get(high << 4 | low, "") for high in range(8))
            cells = "".join(f"   {text}" if len(text) == 1 else f"  {text}" for text in others)
            yield f"  {low:X} | {first:>3} {second:>3}{cells}"
        yield ""


def _name(code: int) -> str:
    if code < len(_CONTROLS):
        return _CONTROLS[code]
    return "SP" if code == ord(" ") else "DEL" if code == _DELETE else chr(code)


def _shown(code: int) -> str:
    if code > _DELETE:
        return f"<{code:02x}>"
    return chr(code) if ord(" ") <= code < _DELETE else f"<{_name(code)}>"


COMMAND = Ascii()

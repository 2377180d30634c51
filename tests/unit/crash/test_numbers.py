"""Numbers and expressions as crash's users type them; what crash 8.0.2 makes of them stands in test_crash_truth.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from kdumpy.crash import registry
from kdumpy.crash.numbers import hexadecimal, number
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [
    ("10", 10), ("0x10", 16), ("1f", 31), ("10k", 10240), ("1G", 1 << 30), ("0x10m", 16 << 20), ("010", 10),
])
def test_a_number_is_decimal_unless_it_cannot_be(text: str, expected: int) -> None:
    assert number(text) == expected
    assert hexadecimal("10") == 16


@pytest.mark.parametrize("text", ["", "k", "0x", "1_0", "+5", "-5", " 5", "x", "1" * 30, "99999999999g", "٣"])
def test_what_is_no_number_says_so(text: str) -> None:
    with pytest.raises(UsageError):
        number(text)


def evaluated(text: str) -> int:
    """Return what `eval` makes of an expression, with schedule at 0x1000 and add at 0x2000."""
    symbols = {"schedule": 0x1000, "add": 0x2000}
    prog = SimpleNamespace(symbols=lambda name: [name] if name in symbols else [],
                           symbol=lambda name: SimpleNamespace(address=symbols[name]))
    command = registry.command("eval")
    session = cast(Session, SimpleNamespace(prog=prog))
    (row,) = command.rows(session, command.parse("eval", text.split()))
    value: int = row.value
    assert (int(row.hexadecimal, 16), int(row.octal, 8), int(row.binary, 2)) == (value,) * 3
    assert sum(1 << bit for bit in row.bits) == value
    assert row.signed % (1 << 64) == value
    return value


@pytest.mark.parametrize(("text", "expected"), [
    ("1 + 2 * 3", 7), ("(1+2)*3", 9), ("-1", (1 << 64) - 1), ("-0x10 + 16", 0), ("~0 >> 60", 15), ("7 / 2", 3),
    ("7 % 4", 3), ("2 # 10", 1024), ("2 # 64", 0), ("3 # 99999999999", pow(3, 99999999999, 1 << 64)),
    ("1 << 64", 0), ("1 << 18446744073709551615", 0), ("1 >> 99", 0), ("6 & 3 | 8", 10), ("6 ^ 3", 5),
    ("schedule + 20", 0x1014), ("add", 0x2000), ("0xadd", 0xadd), ("2k * 2", 4096), ("1 - 2", (1 << 64) - 1),
])
def test_eval(text: str, expected: int) -> None:
    assert evaluated(text) == expected


@pytest.mark.parametrize("text", [
    "1 +", "+", "(1", "1)", "1 2", "5 / 0", "5 % 0", "nothing", "`id`", "(" * 200 + "1" + ")" * 200, "-" * 500 + "1",
    "1+" * 5000 + "1", "__import__", "1 > 2",
])
def test_what_cannot_be_evaluated_says_so(text: str) -> None:
    with pytest.raises(UsageError):
        evaluated(text)


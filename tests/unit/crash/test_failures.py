"""Whatever goes wrong becomes one line."""

from __future__ import annotations

import drgn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.crash.failures import explain
from kdumpy.errors import KdumpyError, MissingPage, NotInDump, UsageError


@pytest.mark.parametrize(("text", "expected"), [
    ("Excluded page", "page excluded at ffff888000001000"),
    ("could not find memory segment", "no memory at ffff888000001000"),
    ("could not read memory from kdump: Cannot get page I/O address: Page directory not present: pud[2] = 0x0",
     "no memory at ffff888000001000"),
    ("could not read memory from kdump: address is not mapped", "no memory at ffff888000001000"),
    ("I/O error", "page missing at ffff888000001000"),
])
def test_a_fault_says_what_is_not_there_and_where(text: str, expected: str) -> None:
    error = explain(drgn.FaultError(text, 0xFFFF888000001000))
    assert isinstance(error, MissingPage)
    assert error.what == expected


def test_a_name_that_is_not_known_is_named() -> None:
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    with pytest.raises(LookupError) as caught:
        prog["no_such_variable"]
    assert isinstance(explain(caught.value), NotInDump)
    assert "no_such_variable" in str(explain(caught.value))


def test_what_python_and_drgn_say_becomes_what_it_means() -> None:
    with pytest.raises(OverflowError) as caught:
        (1 << 70).to_bytes(8, "little")
    assert "a number is larger than it can be" in str(explain(caught.value, "task"))
    assert "OverflowError" not in str(explain(caught.value, "task"))
    error = explain(Exception("could not find variable in direct mapping"), "kmem")
    assert isinstance(error, NotInDump)
    assert str(error) == "kmem: where the kernel's memory is mapped is not known"
    assert str(explain(Exception("what drgn says"), "kmem")) == "kmem: what drgn says"


def test_ours_stay_as_they_are() -> None:
    error = UsageError("wrong")
    assert explain(error) is error
    assert explain(ExceptionGroup("two", [error, ValueError()])) is error


@given(st.sampled_from([ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError, RecursionError]),
       st.text())
def test_every_error_has_a_line(kind: type[Exception], text: str) -> None:
    assert isinstance(explain(kind(text), "bt"), KdumpyError)

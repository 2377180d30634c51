"""What groups crashes: the same bug gets the same id, another one does not."""

from __future__ import annotations

from kdumpy.diagnosis.causes.base import CERTAIN, Finding
from kdumpy.diagnosis.causes.unknown import message_tokens
from kdumpy.diagnosis.signature import sign
from kdumpy.kernel.values import Frame


def finding(symbol: str | None, *, subtype: str = "read", tokens: str = "") -> Finding:
    frame = Frame(0xFFFFFFFFC0345678, symbol, 0xF, "drv") if symbol else None
    return Finding("title", CERTAIN, "words", [], culprit=frame, subtype=subtype, tokens=tokens)


def test_neither_addresses_nor_offsets_nor_suffixes_are_in_it() -> None:
    one = sign("null-dereference", finding("f.isra.0"), [Frame(1, "f.isra.0", 1, "drv"), Frame(2, "g", 2, None)])
    two = sign("null-dereference", finding("f.constprop.0.cold"), [Frame(7, "f", 9, "drv"), Frame(3, "g", 4, None)])
    assert one.id == two.id
    assert one.id.startswith("v1-")
    assert one.alternates == two.alternates
    assert one.parts == ("v1", "null-dereference", "read", "drv", "f")
    assert one.title == "null-dereference (read) in f [drv]"


def test_cause_subtype_and_function_tell_bugs_apart() -> None:
    ids = {sign(cause, finding(symbol, subtype=subtype), []).id
           for cause in ("bug", "warn") for symbol in ("f", "g") for subtype in ("read", "write")}
    assert len(ids) == 8


def test_a_loop_is_one_bug_whichever_watchdog_notices_it() -> None:
    noticed = [sign(cause, finding("f", subtype=""), []) for cause in ("soft-lockup", "hard-lockup", "rcu-stall")]
    assert len({one.id for one in noticed}) == len({one.title for one in noticed}) == 1
    assert noticed[0].id.startswith("v2-")
    assert noticed[0].parts == ("v2", "lockup", "", "drv", "f")
    assert "here as rcu-stall" in noticed[2].decisions[-1]
    others = [sign("soft-lockup", finding("g", subtype=""), []), sign("hung-task", finding("f", subtype=""), [])]
    assert len({noticed[0].id, *(one.id for one in others)}) == 3


def test_an_empty_key_groups_nothing() -> None:
    signature = sign("unknown", finding(None), [])
    assert signature.id == ""
    assert signature.decisions[-1].startswith("not grouped")


def test_a_message_is_tokenised() -> None:
    assert message_tokens("no answer from 0xffff888012345678 after 17 ticks") == "no answer from ADDRESS after N ticks"
    one, two = (sign("unknown", finding(None, tokens=message_tokens(f"lost {count} of {count + 1}")), [])
                for count in (3, 400))
    assert one.id == two.id

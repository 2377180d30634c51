"""The report as text: harmless, as wide as it is told, the verdict first."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpy.diagnosis.facts.findings import MachineFinding, Severity, Unchecked
from kdumpy.diagnosis.facts.memory import MemoryAccount, MemoryZone
from kdumpy.diagnosis.model import (
    SCHEMA,
    Blocked,
    BlockedFacts,
    Confidence,
    CpuFacts,
    Culprit,
    Diagnosis,
    DumpFacts,
    Evidence,
    FrameFacts,
    Health,
    MemoryFacts,
    ModuleFacts,
    NotJudged,
    PanicFacts,
    Signature,
    SystemFacts,
    TaskFacts,
    Verdict,
    Wait,
)
from kdumpy.report import json as report_json
from kdumpy.report import text
from kdumpy.report.layout import Style


def diagnosis(words: str = "words", *, cause: str = "bug", health: Health = Health.COMPLETE,
              missing: dict[str, str] | None = None) -> Diagnosis:
    """Return a diagnosis whose every text out of the dump is `words`."""
    task = TaskFacts(1, words, 0xFF)
    return Diagnosis(
        schema=SCHEMA,
        dump=DumpFacts("/var/crash/host-2026-11-23-17:37:02/vmcore", "kdump", 1 << 20, 31, health, (words,),
                       missing or {}, ()),
        system=SystemFacts(words, words, words, words, 2, 1 << 30, 99.5, 1, 2, words, (words,), (0.0, 0.5, 1.0)),
        panic=PanicFacts(words, 0, task, words, {"rax": 1}, words, 1, 2),
        verdict=Verdict(cause, f"Title {words}", Confidence.LIKELY, Culprit("f", "drv", None), f"Because {words}",
                        (Evidence("seen", words, "kdumpy log /var/crash/host-2026-11-23-17:37:02/vmcore"),),
                        ("warn",), (f"Do {words}",), (NotJudged("deadlock", words),)),
        signature=Signature("v1-0123", words, ("v1",), {}, (words,)),
        trace=(FrameFacts(1, words, 2, "drv", None, False, True), FrameFacts(0, None, None, None, None, False, False)),
        trace_source="dump", trace_task=task,
        cpus=(CpuFacts(0, task, True, words, (words,)),),
        blocked=Blocked(1, (BlockedFacts(task, 1.5, Wait(words, 1, "mutex", task), (words,)),), ((1, 2),)),
        memory=MemoryFacts(1, 2, 3, 4, 5, 6), modules=(ModuleFacts(words, 1, "OE", words),), log_tail=(words,))


def test_the_verdict_stands_first() -> None:
    lines = text.render(diagnosis()).splitlines()
    assert lines[0] == "Title words"
    assert lines[2].split() == ["cause", "bug"]
    assert lines[3].split() == ["culprit", "f()", "in", "module", "drv"]
    assert lines[4].split()[:2] == ["confidence", "likely:"]


def test_a_terminal_gets_colours_and_a_file_does_not() -> None:
    assert "\x1b[" in text.render(diagnosis(), colour=True)
    assert "\x1b" not in text.render(diagnosis())


def test_what_left_no_frame_is_marked_and_explained() -> None:
    shown = text.render(diagnosis(), full=True)
    assert "(tail call)" not in shown
    jumped = replace(diagnosis(), trace=(FrameFacts(1, "spin", 2, "drv", None, False, False),
                                         FrameFacts(3, "poll", None, "drv", None, False, True)))
    for full in (False, True):
        shown = text.render(jumped, full=full)
        assert "→ poll [drv] (tail call)\n" in shown
        assert "bt does not show it" in " ".join(shown.split())


def test_memory_is_what_is_there_and_what_of_it_is_managed() -> None:
    account = MemoryAccount(640 << 20, (), 0, (MemoryZone(0, "DMA32", 640 << 20, 402 << 20, 0, 0, 0, ()),), (), (), (),
                            (), ())
    told = replace(diagnosis(), memory=MemoryFacts(402 << 20, 2, 3, 4, 5, 6, account))
    assert "2 CPUs, 640.0 MiB memory (402.0 MiB of it managed)" in text.render(told, full=True)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\x08\x00"


def test_a_terminal_obeys_nothing_out_of_a_dump() -> None:
    shown = text.render(diagnosis(HOSTILE), full=True)
    assert [character for character in shown if ord(character) < 32 and character != "\n"] == []
    assert not any(0x7F <= ord(character) < 0xA0 for character in shown)
    assert "\\x1b]0;owned\\x07" in shown


def test_nothing_out_of_a_dump_turns_or_hides_what_stands_beside_it() -> None:
    shown = text.render(diagnosis("a\u202eb\u200fc\u2066d\u200be\U000e0041f"), full=True)
    assert "a\\u202eb\\u200fc\\u2066d\\u200be\\U000e0041f" in shown
    assert not any(unicodedata.category(character) in ("Cf", "Cc", "Cs") for character in shown if character != "\n")


def test_colours_are_the_only_escapes() -> None:
    import re

    shown = re.sub(r"\x1b\[[\d;]*m", "", text.render(diagnosis(HOSTILE), colour=True, full=True))
    assert "\x1b" not in shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_are_wrapped_but_for_stacks_commands_and_the_log(width: int) -> None:
    told = text.render(diagnosis("many words " * 30), width=width).split("Stack of")[0]
    assert max(map(len, told.splitlines())) <= width


def test_what_is_missing_is_said() -> None:
    shown = text.render(diagnosis(health=Health.INCOMPLETE, missing={"symbols": "no kallsyms"}))
    assert "The dump is incomplete: words" in shown
    assert "symbols: no kallsyms" in shown
    assert "not judged, whether it is deadlock" in shown


def test_what_lacks_only_its_name_is_said_in_one_row() -> None:
    missing = {"symbols": "no kallsyms", "uptime": "could not find 'tk_core'", "load": "could not find 'avenrun'"}
    shown = text.render(diagnosis(missing=missing))
    assert "without symbols these cannot be found: uptime, load\n" in shown
    assert "tk_core" not in shown


def test_the_engine_is_a_fact_and_lacks_nothing() -> None:
    shown = text.render(diagnosis(missing={"engine": "kdumpy's own reader"}), full=True)
    assert "  - engine" not in shown
    assert "\n  engine        kdumpy's own reader\n" in shown


def test_a_kernel_that_did_not_crash() -> None:
    shown = text.render(diagnosis(cause="none"), full=True)
    assert "confidence" not in shown
    assert "\n  taken " in shown
    assert "\n  crashed " not in shown


def test_the_idle_task_is_named_where_the_kernel_died_in_it() -> None:
    idle = TaskFacts(0, "swapper/1", 1)
    made = replace(diagnosis(), trace_task=idle, cpus=(CpuFacts(1, idle, True, "panicked", ()),))
    shown = text.render(made, full=True)
    assert "Stack of the idle task, innermost first\n" in shown
    assert "CPU 1   panicked  the idle task, interrupted\n" in shown


def test_the_line_that_tells_of_the_crash_stands_out() -> None:
    log = ("[    1.0] before", "[    2.0] BUG: it", "[    3.0] BUG: it")
    made = diagnosis()
    assert made.panic is not None
    made = replace(made, panic=replace(made.panic, message="BUG: it"), log_tail=log)
    shown = text.render(made, colour=True, full=True)
    assert f"\x1b[{Style.BAD}m{log[1]}\x1b[0m" in shown
    assert f"\x1b[{Style.QUIET}m{log[0]}\x1b[0m" in shown
    assert f"\x1b[{Style.QUIET}m{log[2]}\x1b[0m" in shown


def test_a_long_path_is_said_once() -> None:
    shown = text.render(diagnosis())
    assert "$ VMCORE=/var/crash/host-2026-11-23-17:37:02/vmcore\n" in shown
    assert "$ kdumpy log $VMCORE\n" in shown


def test_json_holds_addresses_as_text(tmp_path: Path) -> None:
    value = json.loads(report_json.render(diagnosis()))
    assert value["panic"]["registers"] == {"rax": "0x1"}
    assert value["panic"]["fault_address"] == "0x2"
    assert value["verdict"]["confidence"] == "likely"


@settings(max_examples=50, deadline=None)
@given(st.text(), st.integers(0, 300))
def test_any_text_is_rendered(words: str, width: int) -> None:
    for full, cut in ((False, False), (False, True), (True, False)):
        assert "\x1b" not in text.render(diagnosis(words), width=width, full=full, cut=cut)
    json.loads(report_json.render(diagnosis(words)))


def test_recursion_is_said_once_with_its_count() -> None:
    from dataclasses import replace

    frame = FrameFacts(1, "walk", 2, "drv", None, False, False)
    shown = text.render(replace(diagnosis(), trace=(frame,) * 90))
    assert shown.count("walk+0x2 [drv]") == 1
    assert "(90 times)" in shown


def test_a_report_fits_on_one_screen_and_names_what_it_leaves_out() -> None:
    made = diagnosis()
    evidence = tuple(Evidence(f"piece {number}", "words", "") for number in range(9))
    frames = tuple(FrameFacts(number, f"f{number}", 1, None, None, False, number == 20) for number in range(40))
    made = replace(made, verdict=replace(made.verdict, evidence=evidence), trace=frames, log_tail=("a line",) * 80)
    short, full = text.render(made), text.render(made, full=True)
    assert len(short.splitlines()) <= 50 < len(full.splitlines())
    assert "piece 2" in short
    assert "piece 3" not in short
    assert "piece 8" in full
    assert "→ f20+0x1" in short
    assert "… 16 inside" in short
    assert "… and 16 more" in short
    assert "kdumpy report $VMCORE --full" in short
    assert "--full" not in full


def test_findings_that_are_only_good_to_know_stand_in_full() -> None:
    found = tuple(MachineFinding(f"c{number}", severity, f"finding {number}", "detail", "") for number, severity in
                  enumerate((Severity.CRITICAL, Severity.WARNING, Severity.WARNING, Severity.WARNING, Severity.INFO)))
    made = replace(diagnosis(), findings=found, unchecked=(Unchecked("swap", "no pages"),))
    short, full = text.render(made), text.render(made, full=True)
    assert "finding 2: detail" in short
    assert "finding 3" not in short
    assert "… and 1 more" in short
    assert "finding 4" in full
    assert "not judged: swap (no pages)" in full
    assert "Also found" not in text.render(replace(diagnosis(), findings=found[4:]))


def test_every_decision_is_told_where_that_is_asked_for() -> None:
    found = diagnosis("nearest frame")
    found = replace(found, verdict=replace(found.verdict, decisions=("these fit: bug (certain), warn (likely)",
                                                                     "chosen: bug, certain")),
                    signature=replace(found.signature, parts=("v1", "bug", "", "drv", "f"),
                                      alternates={"top3": "v1-99"}))
    shown = text.render(found, explained=True)
    assert "1. these fit: bug (certain), warn (likely)" in shown
    assert "3. not judged, whether it is deadlock: nearest frame" in shown
    assert "v1-0123 is made of: version of the rules v1, cause bug, module drv, key f" in shown
    assert "v1-99 is made of the same and the nearest 3 functions" in shown
    assert "How the cause was chosen" not in text.render(found)


def test_where_nothing_crashed_nothing_was_chosen() -> None:
    shown = text.render(diagnosis(cause="none"), explained=True)
    assert "there was nothing to choose" in shown
    assert "What groups" not in shown


def test_a_command_within_a_sentence_stands_on_one_line() -> None:
    advice = "On that host, `modinfo weaver` names the author of it, and `dpkg -S $(modinfo -n weaver)` the package."
    told = replace(diagnosis(), verdict=replace(diagnosis().verdict, next=(advice,)))
    for width in range(60, 100):
        assert "`dpkg -S $(modinfo -n weaver)`" in text.render(told, width=width)

"""Diagnoses and details made up for the tests of reports: of any size, and with any text in them."""

from __future__ import annotations

import shlex

from kdumpy.diagnosis.details.model import (
    Code,
    CodeLine,
    Details,
    Log,
    LogEvent,
    LogLine,
    ModuleRow,
    Register,
    TaskRow,
)
from kdumpy.diagnosis.facts.findings import MachineFinding, Severity, Unchecked
from kdumpy.diagnosis.facts.memory import CgroupLimit, MemoryAccount, MemoryShare, OomKill, ProcessShare, SlabShare
from kdumpy.diagnosis.facts.reading import BadPointer, Check, Pointee, Reading, Track
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

VMCORE = "/var/crash/host-2026-11-23-17:37:02/vmcore"
HOSTILE = (
    "</script><script>window.owned=1</script>",
    "<img src=x onerror=window.owned=1>",
    "\"'><svg onload=window.owned=1>",
    "</style></title></textarea><iframe src=javascript:window.owned=1>",
    "javascript:window.owned=1",
    "{{ 7 * 7 }} {% raw %} ${window.owned=1} `x`",
    "<!--<script>", "-->", "]]>", "&lt;b&gt; &amp; &#60;",
    "\x00\x01\x1b[31m\x7f\x9b2J\r\n\tend",
    "\u202egnihton\u202c \u2066isolate\u2069 \u200bhidden\ufeff \u2028line\u2029",
    "Z\u0337\u0321\u0322\u0323\u0324\u0325\u0326\u0327\u0328\u0329\u032a\u032b\u032calgo",
    "\ud800 alone \udfff", "x" * 5000, "",
)
"""Text that has broken pages: markup, scripts, templates, control characters, directions, surrogates, length."""


def diagnosis(words: str = "words", *, cpus: int = 4) -> Diagnosis:
    """Return a diagnosis whose every text out of the dump holds `words`."""
    task, other = TaskFacts(30, words, 0xFFFF888003A60000), TaskFacts(31, f"other {words}", 0xFFFF888003A70000)
    path = f"{VMCORE}{words if len(words) < 100 else ''}"
    quoted = shlex.quote(path)
    account = MemoryAccount(
        16 << 30, (MemoryShare("processes", 4 << 30, words), MemoryShare("free", 12 << 30, "free")), 4096, (),
        (SlabShare(words, 1 << 20, 5, 64, True),), (ProcessShare(30, words, 1 << 22, 0, 0),),
        (OomKill(1.0, 7, words, 4096, "none", words),), (CgroupLimit(words, 1 << 20, 1 << 21),), (words,))
    place = Pointee(0xFFFFFFFFC053B0A0, "slab", f"an object {words}", tracks=(Track("freed", 7, 1, 2.5, (words,)),))
    reading = Reading("movl (%rax), %edx", 0xFFFFFFFFC055902F, "read", 0, 4, ("(%rax)",), BadPointer(
        "rax", 0, f"NULL {words}", words, "flaky_poll", words, words, 0, words, place, True, place), words, words,
        (Check("registers", False, words),))
    trace = (
        FrameFacts(0xFFFFFFFFC055902F, "flaky_poll_channel", 0xF, "flaky", None, False, True),
        FrameFacts(0xFFFFFFFFC0559092, f"poll {words}", 0x52, words, words, False, False),
        FrameFacts(0xFFFFFFFF810A1234, "process_one_work", 0x1C7, None, None, False, False),
        FrameFacts(0xFFFFFFFF810A2234, "worker_thread", 0x4D, None, "kernel/workqueue.c:2430", False, False),
        FrameFacts(0, None, None, None, None, False, False))
    return Diagnosis(
        schema=SCHEMA,
        dump=DumpFacts(path, "kdump", 1 << 20, 31, Health.INCOMPLETE,
                       (words,), {"tasks": words, words: "lost"}, ()),
        system=SystemFacts("6.1.0-56-amd64", words, "x86_64", words, cpus, 16 << 30, 93784.0, 1795455422, 1795549206,
                           words, (f"O: {words}",), (0.0, 0.5, 1.0)),
        panic=PanicFacts(words, 1, task, words, {"rax": 0, "rdi": 0xFFFFFFFFC053B0A0}, "movl (%rax), %edx",
                         0xFFFFFFFFC055902F, 0, reading),
        verdict=Verdict("null-dereference", f"NULL pointer dereference in flaky_poll_channel {words}",
                        Confidence.LIKELY, Culprit("flaky_poll_channel", "flaky", None), f"Because of {words}.",
                        (Evidence("the kernel's own words", words, f"kdumpy log {quoted}"),
                         Evidence(words, f"`{words}` was 0", f"kdumpy crash {quoted} -e '{words}'")),
                        ("warn",), (f"Do {words}", "Update it"), (NotJudged("deadlock", words),)),
        signature=Signature("v1-3be285949717", words, ("v1",), {"top3": "v1-1", words: words}, (words,)),
        trace=trace, trace_source="dump", trace_task=task,
        cpus=tuple(CpuFacts(number, task if number == 1 else TaskFacts(0, f"swapper/{number}", 1), number == 1,
                            "panicked" if number == 1 else "idle", (words, "do_idle")) for number in range(cpus)),
        blocked=Blocked(2, (BlockedFacts(task, 3.9, Wait(words, 0x10, "mutex", other), (words,)),
                            BlockedFacts(other, 3.8, Wait("b", 0x30, "rwsem", task), ("down_read",))), ((30, 31),)),
        memory=MemoryFacts(1, 2, 3, 4, 5, 6, account), modules=(ModuleFacts("flaky", 24576, "OE", words),),
        log_tail=(f"[    1.000000] {words}", "[    2.000000] end"),
        findings=(MachineFinding("memory", Severity.CRITICAL, f"No memory {words}", words, f"kdumpy info {quoted}"),
                  MachineFinding("modules", Severity.INFO, "1 module was built outside", words, "")),
        unchecked=(Unchecked("swap", words),))


def details(words: str = "words", *, tasks: int = 60, lines: int = 300, stacks: int = 40) -> Details:
    """Return details of so many tasks, different stacks and lines of the log, with `words` among them."""
    outer = ("kthread", "ret_from_fork")
    shapes = tuple(("__schedule", "schedule", *(f"wait_{(number * 7 + depth) % 97}" for depth in range(number % 9)),
                    f"serve_{number}" if number % 5 else f"serve_{number} [{words}]", *outer)
                   for number in range(stacks))
    rows = [TaskRow(pid=number + 1, tgid=number + 1, parent=2, comm=words if number % 10 == 3 else f"worker/{number}",
                    state="D" if number % 50 == 7 else "SIR"[number % 3], cpu=number % 8, on_cpu=number == 29,
                    kernel_thread=number % 2 == 0, rss=None if number % 2 == 0 else number * 4096,
                    idle_s=None if number == 29 else number / 10, stack=number % stacks) for number in range(tasks)]
    log = [LogLine(number / 7, 6 if number % 11 else 3, words if number % 13 == 5 else f"line {number} of a driver")
           for number in range(lines)]
    crash = max(0, lines - 40)
    code = Code(0, "flaky_poll_channel", "flaky", (
        CodeLine(0xFFFFFFFFC0559020, 0, "0f 1f 44 00 00", "nopl (%rax, %rax)", "", False),
        CodeLine(0xFFFFFFFFC055902F, 15, "8b 10", "movl (%rax), %edx", "", True, f"read 4 bytes at 0x0 {words}"),
        CodeLine(0xFFFFFFFFC0559031, 17, "e8 00 00 00 00", "callq 0xffffffff81000000", words, False)), 3, 4, True)
    return Details(
        tasks=tuple(rows), stacks=shapes,
        log=Log(tuple(log), (LogEvent(20, 30, words, False), LogEvent(crash, lines, "BUG: the crash", True)), 7),
        code=(code,), registers=(Register("rax", 0, "NULL", "null"), Register("rdi", 1 << 63, words, "kernel"),
                                 Register("cs", 16, "", "")),
        modules=(ModuleRow("flaky", 0xFFFFFFFFC0559000, 24576, "OE", words, (words,), "live"),
                 ModuleRow(words, 0, 4096, "", "", (), words)),
        missing={"stacks": words})

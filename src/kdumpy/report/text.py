"""A diagnosis as people read it: the verdict first, then why, what to do, and the facts."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.model import Confidence, Diagnosis, Health
from kdumpy.report.explain import explain
from kdumpy.report.families import Family, families
from kdumpy.report.folding import folded
from kdumpy.report.layout import Page, Style
from kdumpy.report.words import TAIL_CALL, jumped, memory_words, task_words, wait_words
from kdumpy.units import human_bytes, human_seconds, human_time

_CONFIDENCE = {
    Confidence.CERTAIN: ("certain", Style.GOOD),
    Confidence.LIKELY: ("likely: it fits best, but does not exclude others", Style.DOUBTFUL),
    Confidence.POSSIBLE: ("possible: the evidence is thin", Style.DOUBTFUL),
}
_LONG_PATH = 32
"""A path that is longer than this is said once, and then as $VMCORE."""
_NO_SYMBOL = "could not find "
"""What drgn says of a name that it does not know."""
_CPUS, _BLOCKED, _FRAMES, _WAIT_FRAMES, _LOG = 16, 8, 30, 12, 45
"""How many of each are shown in full; the JSON has all."""
_BEST = 3
"""Pieces of evidence on the one screen."""
_ASKED_FOR = ("sysrq", "nmi", "hard-lockup")
"""Causes by which an operator takes the dump of a machine that hangs: then who waits is the story."""
_WAITS = 4
"""Tasks that wait, on the one screen."""
_SCREEN = 45
"""Lines of the one screen."""
_WIDE = 98
"""Columns from which on the last commands are told in full."""


class _Room(NamedTuple):
    """How much is said."""

    rows: int
    """Of the stack."""
    findings: int | None
    """None: all, and all the rest of what is known."""
    evidence: int = _BEST
    """Pieces."""
    lines: int = 0
    """Of a piece of evidence, or of advice; 0: all."""
    advice: int = 99
    """Pieces."""
    story: int = 0
    """Lines of the explanation; 0: all."""


_FITS = (_Room(8, 3), _Room(8, 2), _Room(6, 2), _Room(6, 1), _Room(4, 1), _Room(3, 1), _Room(3, 0), _Room(3, 0, 2))
"""What there is room for on the one screen: the first of these with which it is one, else the last."""
_CUTS = (_Room(3, 0, lines=3), _Room(3, 0, lines=2), _Room(3, 0, 2, lines=2), _Room(3, 0, 2, lines=2, advice=3),
         _Room(3, 0, 2, lines=2, advice=2), _Room(3, 0, 2, lines=1, advice=2),
         _Room(3, 0, 2, lines=1, advice=2, story=8), _Room(2, 0, 1, lines=1, advice=2, story=6))
"""The same for a small terminal: then sentences are cut short."""
_ALL = _Room(_FRAMES, None, evidence=999)
_SEVERITY = {Severity.CRITICAL: Style.BAD, Severity.WARNING: Style.DOUBTFUL, Severity.INFO: Style.PLAIN}


def render(diagnosis: Diagnosis, *, width: int = 100, colour: bool = False, full: bool = False,
           explained: bool = False, cut: bool = False) -> str:
    """Return the report as text.

    Args:
        diagnosis: what is reported.
        width: columns.
        colour: with the terminal's colours.
        full: all that is known, and not only what a screen has room for.
        explained: with every decision.
        cut: for a terminal: sentences may be cut short so that it fits on one screen.
    """
    if full:
        return str(_page(Page(width, colour), diagnosis, _ALL, explained))
    most = _SCREEN - 1 if cut else _SCREEN      # a terminal shows the prompt, too: else the title is what scrolls away
    for room in (*_FITS, *_CUTS) if cut and not explained else _FITS:
        page = _page(Page(width, colour), diagnosis, room, explained)
        if page.height <= most:
            break
    return str(page)


def _page(page: Page, diagnosis: Diagnosis, room: _Room, explained: bool) -> Page:
    """Fill a page with what there is room for."""
    full = room.findings is None
    _verdict(page, diagnosis, room.story)
    _trust(page, diagnosis)
    _trace(page, diagnosis, room.rows)
    if not full and diagnosis.verdict.cause in _ASKED_FOR:
        _who_waits(page, diagnosis)
    _evidence(page, diagnosis, room)
    _next(page, diagnosis, room)
    if explained:
        explain(page, diagnosis)
    _findings(page, diagnosis, room.findings)
    if full:
        _blocked(page, diagnosis)
        _cpus(page, diagnosis)
        _system(page, diagnosis)
        _log(page, diagnosis)
    else:
        _more(page, diagnosis)
    return page


def _verdict(page: Page, diagnosis: Diagnosis, most: int) -> None:
    verdict = diagnosis.verdict
    page.paragraph(verdict.title, Style.GOOD if verdict.cause == "none" else Style.BAD)
    page.line()
    if verdict.cause != "none":
        culprit = verdict.culprit
        words, style = _CONFIDENCE[verdict.confidence]
        rows = [("cause", verdict.cause, Style.TITLE)]
        if culprit:
            place = culprit.words + (f" in module {culprit.module}" if culprit.module else " in the kernel")
            rows.append(("culprit", place, Style.CULPRIT))
            if culprit.source:
                rows.append(("source", culprit.source, Style.PLAIN))
        rows.append(("confidence", words, style))
        if diagnosis.signature.id:
            rows.append(("signature", diagnosis.signature.id, Style.PLAIN))
        for name, value, row_style in rows:
            page.paragraph(value, row_style, indent=2, hanging=12, mark=name)
        page.line()
    page.paragraph(verdict.explanation, most=most)


def _trust(page: Page, diagnosis: Diagnosis) -> None:
    """Say what the dump lacks, so that nobody takes an absent answer for a good one."""
    dump, verdict = diagnosis.dump, diagnosis.verdict
    missing = {what: why for what, why in dump.missing.items()
               if what != "engine" and not (verdict.cause == "none" and what == "panic")}
    if dump.health == Health.COMPLETE and not missing and not verdict.not_judged:
        return
    page.heading("What this dump does not tell")
    if dump.health != Health.COMPLETE:
        page.paragraph(f"The dump is {dump.health}: " + ("; ".join(dump.health_details) or "no reason is known"),
                       Style.DOUBTFUL, indent=2, hanging=2, mark="-")
    lost = next((what for what in ("symbols", "types") if what in missing), "")
    nameless = [what for what, why in missing.items() if lost and what != lost and _NO_SYMBOL in why]
    for what, why in missing.items():
        if what not in nameless:
            page.paragraph(f"{what}: {why}", indent=2, hanging=2, mark="-")
    if nameless:
        page.paragraph(f"without {lost} these cannot be found: " + ", ".join(nameless), indent=2, hanging=2, mark="-")
    for item in verdict.not_judged:
        page.paragraph(f"not judged, whether it is {item.cause}: {item.why}", indent=2, hanging=2, mark="-")


def _more(page: Page, diagnosis: Diagnosis) -> None:
    """Say what the machine was, and how to see the rest."""
    system, path = diagnosis.system, shlex.quote(diagnosis.dump.path)
    when = human_time(system.panic_time)
    parts = (system.release or "", f"host {system.hostname}" if system.hostname else "",
             f"{'taken' if diagnosis.verdict.cause == 'none' else 'crashed'} {when}" if when else "",
             f"up {human_seconds(system.uptime_s)}".replace(".0 s", " s") if system.uptime_s is not None else "")
    page.heading("More")
    if any(parts):
        page.paragraph(", ".join(part for part in parts if part), indent=2)
    if not diagnosis.verdict.evidence or len(path) <= _LONG_PATH:      # else it was said there
        page.line(f"$ VMCORE={path}", Style.COMMAND, indent=4)
    for command, words, short in (
            ("kdumpy report $VMCORE --full", "all evidence, CPUs, blocked tasks, system, log", "all of it"),
            ("kdumpy report $VMCORE --html report.html", "a page with every task, the code, the log", "a page of it"),
            ("kdumpy crash $VMCORE", "look around: bt -a, ps, log, kmem -i, help", "look around: bt, log")):
        narrow = page.width < _WIDE
        gap = " " * max(2, (42 if narrow else 46) - len(command))
        page.pieces((f"$ {command}", Style.COMMAND), (gap + (short if narrow else words), Style.QUIET), indent=4)


def _evidence(page: Page, diagnosis: Diagnosis, room: _Room) -> None:
    verdict, most = diagnosis.verdict, room.evidence
    if not verdict.evidence:
        return
    shown = [item for item in verdict.evidence if len(verdict.evidence) <= most or item.what != "the stack"][:most]
    page.heading("Evidence, and how to see it")
    path = shlex.quote(diagnosis.dump.path)
    short = "$VMCORE" if len(path) > _LONG_PATH else path
    if short != path:
        page.line(f"$ VMCORE={path}", Style.COMMAND, indent=4)
    for item in shown:
        # On one screen the stack stands above already.
        detail = "above" if room.findings is not None and item.what == "the stack" and diagnosis.trace else item.detail
        page.paragraph(f"{item.what}: {detail}", indent=2, hanging=2, mark="-", most=room.lines)
        if item.command:
            page.line(f"$ {item.command.replace(path, short)}", Style.COMMAND, indent=4)
    if verdict.symptoms:
        page.paragraph("also seen, and explained by this: " + ", ".join(verdict.symptoms), indent=2, hanging=2,
                       mark="-")


def _next(page: Page, diagnosis: Diagnosis, room: _Room) -> None:
    if diagnosis.verdict.next:
        page.heading("What to do")
        for number, advice in enumerate(diagnosis.verdict.next[:room.advice], 1):
            page.paragraph(advice, indent=2, hanging=3, mark=f"{number}.", most=room.lines)


def _findings(page: Page, diagnosis: Diagnosis, most: int | None) -> None:
    """Say what else is wrong with the machine; what is only good to know where all is said (`most` is None)."""
    full = most is None
    found = [item for item in diagnosis.findings if full or item.severity != Severity.INFO]
    shown = found[:most]
    if found and not shown:
        page.line()
        alone = f"Also found on this machine: {found[0].title}"
        if len(found) == 1 and len(alone) <= page.width:
            page.line(alone, Style.HEADING)
            return
        page.line(f"Also found on this machine: {len(found)} (see them with --full)", Style.HEADING)
        return
    if not shown and not (full and diagnosis.unchecked):
        return
    page.heading("Also found on this machine")
    for item in shown:
        page.paragraph(item.title + (f": {item.detail}" if item.detail else ""), _SEVERITY[item.severity], indent=2,
                       hanging=10, mark=item.severity.value)
    if len(found) > len(shown):
        page.line(f"… and {len(found) - len(shown)} more", Style.QUIET, indent=2)
    if full and diagnosis.unchecked:
        page.paragraph("not judged: " + "; ".join(f"{item.check} ({item.why})" for item in diagnosis.unchecked),
                       Style.QUIET, indent=2, hanging=2)


def _trace(page: Page, diagnosis: Diagnosis, most: int) -> None:
    if not diagnosis.trace:
        return
    task = diagnosis.trace_task
    whose = f" of {diagnosis.trace_of}" if diagnosis.trace_of else f" of {task_words(task)}" if task else ""
    page.heading(f"Stack{whose}, innermost first" + (" (from the log)" if diagnosis.trace_source == "log" else ""))
    rows = [(frame, f"   ({'' if len(fold.frames) == 1 else f'these {len(fold.frames)} frames '}{fold.times} times)"
             if fold.times > 1 and frame is fold.frames[-1] else "")
            for fold in folded(diagnosis.trace) for frame in fold.frames]
    # Of a long stack, the part around the culprit.
    culprit = next((number for number, (frame, _) in enumerate(rows) if frame.culprit), 0)
    first = max(0, min(culprit - most // 2, len(rows) - most))
    if first:
        page.line(f"… {first} inside", Style.QUIET, indent=4)
    for frame, times in rows[first:first + most]:
        name = frame.symbol or f"{frame.pc:#x} (no code there)"
        if frame.symbol and frame.offset is not None and not frame.inline:
            name += f"+{frame.offset:#x}"
        if frame.symbol and frame.symbol.startswith("("):
            name = frame.symbol
        name += f" [{frame.module}]" if frame.module else ""
        name += " (inlined)" if frame.symbol and frame.inline and frame.offset is None else \
            " (tail call)" if jumped(frame) else ""
        mark, style = ("→ ", Style.CULPRIT) if frame.culprit else ("  ", Style.PLAIN)
        name += times
        page.pieces((mark, style), (name, style), (f"   {frame.source}" if frame.source else "", Style.QUIET), indent=2)
    if len(rows) > first + most:
        page.line(f"… and {len(rows) - first - most} more", Style.QUIET, indent=4)
    # On one screen only where it matters: the culprit is on no stack.
    if any(jumped(frame) and (frame.culprit or most >= _FRAMES) for frame, _ in rows[first:first + most]):
        page.paragraph(TAIL_CALL, Style.QUIET, indent=4)


def _blocked(page: Page, diagnosis: Diagnosis) -> None:
    blocked = diagnosis.blocked
    if not blocked.tasks:
        return
    page.heading(f"Tasks that wait and cannot be interrupted: {blocked.count}")
    for circle in blocked.circles:
        page.paragraph("they wait for each other in a circle: pids " + " → ".join(map(str, (*circle, circle[0]))),
                       Style.BAD, indent=2)
    shown = families(blocked)[:_BLOCKED]
    for family in shown:
        _family(page, family)
    left_out = blocked.count - sum(len(family.tasks) for family in shown)
    if left_out:
        page.line(f"… and {left_out} more", Style.QUIET, indent=2)


def _family(page: Page, family: Family) -> None:
    item, many = family.first, len(family.tasks) > 1
    since = f", {'the first ' if many else ''}for {human_seconds(item.seconds)}" if item.seconds is not None else ""
    page.paragraph(family.title + since, Style.TITLE, indent=2, hanging=2)
    if family.words:
        article = "" if family.words[0].isdigit() else "the "
        page.paragraph(f"wait{'' if many else 's'} for {article}{family.words}", indent=4, hanging=2)
    page.paragraph(" ← ".join(item.trace[:_WAIT_FRAMES]), Style.QUIET, indent=4, hanging=2)


def _who_waits(page: Page, diagnosis: Diagnosis) -> None:
    """Say in a line each who waits for what: those first whose wait leads on to another task, and that one's."""
    known = [item for item in diagnosis.blocked.tasks if item.waits_for]
    owners = {item.waits_for.owner.pid for item in known if item.waits_for and item.waits_for.owner}
    known.sort(key=lambda item: 0 if item.waits_for and item.waits_for.owner else 1 if item.task.pid in owners else 2)
    if not known:
        return
    page.heading(f"Tasks that wait and cannot be interrupted: {diagnosis.blocked.count}")
    for item in known[:_WAITS]:
        since = f" {human_seconds(item.seconds)}" if item.seconds is not None else ""
        page.paragraph(f"{task_words(item.task)}{since}: {wait_words(item.waits_for)}" if item.waits_for else "",
                       indent=2, hanging=2, mark="-")
    if diagnosis.blocked.count > _WAITS:
        page.line("… all of them: --full", Style.QUIET, indent=2)


def _cpus(page: Page, diagnosis: Diagnosis) -> None:
    if not diagnosis.cpus:
        return
    page.heading("CPUs")
    for cpu in diagnosis.cpus[:_CPUS]:
        task = f"  {task_words(cpu.task)}" if cpu.task and cpu.task.pid else ""
        if cpu.panicked and cpu.task and not cpu.task.pid:
            task = "  the idle task, interrupted"
        page.pieces((f"CPU {cpu.number}".ljust(8), Style.QUIET),
                    (cpu.doing, Style.BAD if cpu.panicked else Style.PLAIN), (task, Style.PLAIN), indent=2)
    if len(diagnosis.cpus) > _CPUS:
        page.line(f"… and {len(diagnosis.cpus) - _CPUS} more", Style.QUIET, indent=2)


def _system(page: Page, diagnosis: Diagnosis) -> None:
    system, dump, memory = diagnosis.system, diagnosis.dump, diagnosis.memory
    used = ", ".join(f"{human_bytes(size)} {name}" for name, size in (
        ("free", memory.free), ("processes", memory.anonymous), ("file cache", memory.file), ("slab", memory.slab))
        if size is not None)
    out_of_tree = [module.name for module in diagnosis.modules if "O" in module.taints]
    page.heading("System")
    page.facts((
        ("kernel", " ".join(part for part in (system.release, system.version, system.machine) if part)),
        ("host", system.hostname or ""),
        ("taken" if diagnosis.verdict.cause == "none" else "crashed", human_time(system.panic_time)),
        # The kernel's own count is of whole seconds.
        ("uptime", human_seconds(system.uptime_s).replace(".0 s", " s") if system.uptime_s is not None else ""),
        ("hardware", ", ".join(part for part in (
            f"{system.cpus} CPUs" if system.cpus else "",
            memory_words(diagnosis)) if part)),
        ("memory", used),
        ("load", ", ".join(f"{value:.2f}" for value in system.load)),
        ("taint", "; ".join(system.taints)),
        ("modules", f"{len(diagnosis.modules)} loaded" if diagnosis.modules else ""),
        ("out-of-tree", ", ".join(out_of_tree)),
        ("command line", system.cmdline or ""),
        ("dump", dump.path),
        ("file", f"{dump.format}, {human_bytes(dump.size)}, {dump.health}"),
        ("engine", dump.missing.get("engine", "")),
        ("symbols", ", ".join(dump.debug_files) if dump.debug_files else "from the dump itself"
         if "symbols" not in dump.missing and "everything but the log" not in dump.missing else ""),
    ))


def _log(page: Page, diagnosis: Diagnosis) -> None:
    if not diagnosis.log_tail:
        return
    page.heading("Log" if diagnosis.verdict.cause == "none" else "Log, from just before the crash")
    lines = diagnosis.log_tail[-_LOG:] if diagnosis.verdict.cause == "none" else diagnosis.log_tail[:_LOG]
    telling = diagnosis.panic.message if diagnosis.panic else None
    for line in lines:
        tells = bool(telling) and line.endswith(str(telling))
        page.line(line, Style.BAD if tells else Style.QUIET, indent=2)
        telling = None if tells else telling
    if len(diagnosis.log_tail) > _LOG:
        page.line(f"… all of it: kdumpy log {diagnosis.dump.path}", Style.QUIET, indent=2)

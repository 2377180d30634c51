"""A diagnosis as text for a bug report: what those who mend the code need, and nothing that tells of the host.

Left out: the host's name, the kernel's command line, the path of the dump, and what other tasks did.
"""

from __future__ import annotations

import time

from kdumpy.diagnosis.model import Diagnosis, FrameFacts
from kdumpy.report.words import jumped, memory_words
from kdumpy.units import human_seconds, printable

_FRAMES, _LOG, _EVIDENCE = 40, 70, 4


def render(diagnosis: Diagnosis) -> str:
    """Return the text."""
    verdict, system, panic = diagnosis.verdict, diagnosis.system, diagnosis.panic
    culprit = verdict.culprit
    out_of_tree = [f"{item.name} {item.version}".strip() + f" ({item.taints})" for item in diagnosis.modules
                   if item.taints]
    rows = (
        ("Cause", f"{verdict.cause} ({verdict.confidence})"),
        ("Culprit", culprit.words + (f" in module {culprit.module}" if culprit.module else "")
         + (f", {culprit.source}" if culprit.source else "") if culprit else ""),
        ("Signature", diagnosis.signature.id),
        ("Kernel", " ".join(part for part in (system.release, system.version, system.machine) if part)),
        ("Machine", ", ".join(part for part in (
            f"{system.cpus} CPUs" if system.cpus else "",
            memory_words(diagnosis)) if part)),
        ("Crashed", (_day(system.panic_time) or "") + (f" after {human_seconds(system.uptime_s)} of uptime"
                                                       if system.uptime_s is not None else "")),
        ("Context", panic.context or "" if panic else ""),
        ("Fault", panic.instruction or "" if panic else ""),
        ("Tainted", "; ".join(system.taints) or ("" if "taint" in diagnosis.dump.missing else "no")),
        ("Modules that taint", ", ".join(out_of_tree)),
    )
    lines = [verdict.title, "", *(f"{name}: {value}" for name, value in rows if value.strip()), "",
             *_wrapped(verdict.explanation), ""]
    evidence = [item for item in verdict.evidence if not item.command.rstrip().endswith(" bt")][:_EVIDENCE]
    if evidence:
        lines += ["Evidence:", *(f"- {item.what}: {item.detail}" for item in evidence), ""]
    if diagnosis.trace:
        lines += ["Call trace, innermost first:", *(_frame(frame) for frame in diagnosis.trace[:_FRAMES]), ""]
    if diagnosis.log_tail:
        lines += ["Kernel log:", *(f"  {line}" for line in diagnosis.log_tail[:_LOG]), ""]
    lines.append("Made by kdumpy from the crash dump.")
    return "\n".join(printable(line) for line in lines) + "\n"


def _frame(frame: FrameFacts) -> str:
    name = frame.symbol or f"{frame.pc:#x}"
    if frame.symbol and frame.offset is not None and not frame.inline:
        name += f"+{frame.offset:#x}"
    name += " (tail call)" if jumped(frame) else ""
    return (f"  {'>' if frame.culprit else ' '} {name}" + (f" [{frame.module}]" if frame.module else "")
            + (f"  {frame.source}" if frame.source else ""))


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 90, break_long_words=False, break_on_hyphens=False)


def _day(seconds: int | None) -> str | None:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds is not None else None
    except (ValueError, OverflowError, OSError):
        return None

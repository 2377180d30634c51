"""Whether this host is ready to save its next crash: all checks, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kdumpy.host.checks import CHECKS, Answer, Facts, Verdict, ask, check
from kdumpy.host.checks.base import unknown
from kdumpy.host.machine import container
from kdumpy.host.system import System
from kdumpy.units import human_bytes

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Line:
    """One check and its answer."""

    name: str
    essential: bool
    answer: Answer


@dataclass(frozen=True, slots=True)
class Status:
    """All that was found."""

    ready: bool | None
    """The next panic leaves a dump; None: it is not known."""
    verdict: str
    """In one line."""
    lines: tuple[Line, ...]
    at: float
    """Seconds since 1970."""

    def of(self, verdict: Verdict) -> tuple[Line, ...]:
        """Return the checks that ended so."""
        return tuple(line for line in self.lines if line.answer.verdict is verdict)

    def answer(self, name: str) -> Answer:
        """Return a check's answer."""
        return next(line.answer for line in self.lines if line.name == name)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values; docs/status.md has the keys."""
        return {"schema": SCHEMA, "ready": self.ready, "verdict": self.verdict, "time": round(self.at, 3),
                "checks": {line.name: {"holds": CHECKS[line.name], "verdict": str(line.answer.verdict),
                                       "essential": line.essential, "reason": line.answer.reason,
                                       "mend": line.answer.mend, **({"facts": dict(line.answer.facts)}
                                                                    if line.answer.facts else {})}
                           for line in self.lines}}


def look(system: System, cause_of: Callable[[str], str] = lambda log: "") -> Status:
    """Ask all checks.

    Args:
        system: the host.
        cause_of: tells the cause of a crash by the text of its kernel's log.
    """
    facts = Facts(system, cause_of)
    # A container's other answers would be its host's, and their mends wrong.
    asked = {"kernel"} if container(system) else set(CHECKS)
    lines = tuple(Line(name, check(name).ESSENTIAL, ask(name, facts) if name in asked else
                       unknown("not looked at in a container")) for name in CHECKS)
    return _judge(lines, time.time())


def _judge(lines: tuple[Line, ...], at: float) -> Status:
    """Make one verdict of many: what is bad goes first, then what is essential and not known."""
    wrong = [line for line in lines if line.answer.verdict is Verdict.BAD]
    hidden = [line for line in lines if line.essential and line.answer.verdict is Verdict.UNKNOWN]
    if wrong:
        # The checks stand in the order of cause and effect: without memory nothing is loaded.
        return Status(False, f"NOT READY: {wrong[0].answer.reason}", lines, at)
    if hidden:
        return Status(None, f"NOT KNOWN: {hidden[0].answer.reason}", lines, at)
    return Status(True, f"READY: the next panic will leave a dump {_where(lines)}", lines, at)


def _where(lines: tuple[Line, ...]) -> str:
    answers: Mapping[str, Answer] = {line.name: line.answer for line in lines}
    targets = answers["target"].facts.get("targets", ())
    place = ""
    if isinstance(targets, list):
        place = next((str(one["url"]) for one in targets if one["good"] is not False), "")
    size = answers["space"].facts.get("estimated_bytes")
    told = f" (about {human_bytes(size)})" if isinstance(size, int) else ""
    return f"in {place}{told}" if place.startswith("/") else f"on {place}{told}"


_VERDICTS = {Verdict.OK: 0, Verdict.WARN: 1, Verdict.BAD: 2, Verdict.UNKNOWN: 3}

_GAUGES = (("reservation", "reserved_bytes", "Memory reserved for the capture kernel."),
           ("space", "estimated_bytes", "Size of a dump, estimated from the memory as it is used now."),
           ("space", "free_bytes", "Free space on the target that takes the next dump."),
           ("memory", "needed_bytes", "Reserved memory that the capture needs, rehearsed or estimated."),
           ("image", "image_bytes", "Size of the capture image."),
           ("retention", "dumps", "Crashes that are kept on this host."),
           ("retention", "dumps_bytes", "Their size."),
           ("loaded", "loaded_at", "When the capture kernel was loaded, in seconds since 1970."),
           ("last-crash", "at", "When the last known crash was, in seconds since 1970."))
"""Check, fact, help: kdumpy_<check>_<fact>."""


def prometheus(status: Status) -> str:
    """Return it in Prometheus' text format, as node_exporter's textfile collector reads it.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    ready = "NaN" if status.ready is None else int(status.ready)
    lines = [*_metric("kdumpy_ready", "Whether the next panic leaves a dump (1), not (0), or it is not known (NaN).",
                      f"kdumpy_ready {ready}"),
             *_metric("kdumpy_check", "How each check ended: 0 ok, 1 warn, 2 bad, 3 unknown.",
                      *(f'kdumpy_check{{check="{line.name}"}} {_VERDICTS[line.answer.verdict]}'
                        for line in status.lines))]
    for name, fact, told in _GAUGES:
        value = status.answer(name).facts.get(fact)
        if isinstance(value, int | float):
            metric = f"kdumpy_{name.replace('-', '_')}_{fact}"
            lines += _metric(metric, told, f"{metric} {value}")
    lines += _metric("kdumpy_status_time_seconds", "When this was looked at, in seconds since 1970.",
                     f"kdumpy_status_time_seconds {status.at:.3f}")
    return "\n".join(lines) + "\n"


def _metric(name: str, told: str, *samples: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} gauge"
    yield from samples

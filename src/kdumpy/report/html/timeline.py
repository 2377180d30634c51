"""The log at a glance: columns of equally many lines, coloured by the worst of them, with times and gaps below."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from kdumpy.diagnosis.details.model import Log
from kdumpy.units import human_seconds

WIDTH = 960
_COLUMNS, _BAR, _LABEL = 160, 36, 90
_GAP_SHARE = 0.04
"""A silence that takes more than this share of the time is marked."""


@dataclass(frozen=True)
class Column:
    """Some lines of the log."""

    x: float
    width: float
    line: int
    """The first of them."""
    kind: str
    """cause, event, error, warning, quiet."""
    words: str


@dataclass(frozen=True)
class Timeline:
    """The picture; in pixels."""

    columns: tuple[Column, ...]
    labels: tuple[tuple[float, str], ...]
    gaps: tuple[tuple[float, str], ...]
    """Silences: where, and for how long."""
    words: str


def draw(log: Log) -> Timeline | None:
    """Lay the picture out; None for an empty log."""
    count = len(log.lines)
    if not count:
        return None
    per = max(1, -(-count // _COLUMNS))
    width = WIDTH / -(-count // per)
    columns = []
    for begin in range(0, count, per):
        lines = log.lines[begin:begin + per]
        first = next((line.seconds for line in lines if line.seconds is not None), None)
        kind = _kind(log, begin, begin + per)
        words = f"line {begin + 1}" + (f", {human_seconds(first)}" if first is not None else "")
        columns.append(Column(round(begin / per * width, 2), round(max(width - 1, 1), 2), begin, kind, words))
    return Timeline(tuple(columns), _labels(log, width / per), _gaps(log, width / per), _told(log))


def _kind(log: Log, begin: int, end: int) -> str:
    touching = [event for event in log.events if event.line < end and event.end > begin]
    if any(event.cause for event in touching):
        return "cause"
    if touching:
        return "event"
    worst = min((line.level for line in log.lines[begin:end] if line.level >= 0), default=7)
    return "error" if worst <= 3 else "warning" if worst == 4 else "quiet"


def _labels(log: Log, scale: float) -> tuple[tuple[float, str], ...]:
    """Return times along the picture, where there is room; that of the crash comes before those beside it."""
    crash = next((event.line for event in log.events if event.cause), None)
    at_crash = crash * scale if crash is not None and log.lines[crash].seconds is not None else None
    labels: list[tuple[float, str]] = []
    for number, line in enumerate(log.lines):
        x = number * scale
        room = not labels or x - labels[-1][0] >= _LABEL
        taken = at_crash is not None and number != crash and abs(x - at_crash) < _LABEL
        last = WIDTH - _LABEL / 2
        if line.seconds is not None and (number == crash or (room and not taken and x < last)):
            labels.append((round(min(x, last), 1), human_seconds(line.seconds)))
    return tuple(labels)


def _gaps(log: Log, scale: float) -> tuple[tuple[float, str], ...]:
    times = [(number, line.seconds) for number, line in enumerate(log.lines) if line.seconds is not None]
    if len(times) < 2:
        return ()
    span = times[-1][1] - times[0][1]
    gaps = [(round(later[0] * scale, 1), human_seconds(later[1] - earlier[1]))
            for earlier, later in pairwise(times)
            if later[1] - earlier[1] > max(1.0, span * _GAP_SHARE)]
    return tuple(gaps[:20])


def _told(log: Log) -> str:
    cause = next((event for event in log.events if event.cause), None)
    words = f"{len(log.lines)} lines, {len(log.events)} reports of trouble"
    return words + (f"; the crash begins at line {cause.line + 1}: {cause.words}" if cause else "")

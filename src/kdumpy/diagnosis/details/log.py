"""The whole log, and the reports of trouble in it."""

from __future__ import annotations

from collections.abc import Sequence

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.details.model import Log, LogEvent, LogLine
from kdumpy.dumpfile.logrecord import LogRecord

MOST_LINES = 20_000
"""Lines that are kept, the newest; a log of 2 MiB has about that many."""
MOST_EVENTS = 500
LONGEST_LINE = 4096
"""Characters; printk's own limit is 1,024 for a line."""


def read(records: Sequence[LogRecord], crash: Crash) -> Log:
    """Return the log's lines, the newest `MOST_LINES` of them, and the events among them."""
    lines = [LogLine(record.seconds if record.ts_ns >= 0 else None, record.level, line[:LONGEST_LINE])
             for record in records for line in record.text.split("\n")]
    left_out = max(0, len(lines) - MOST_LINES)
    events = [LogEvent(event.position - left_out, event.position - left_out + len(event.lines), event.text,
                       event is crash.logged)
              for event in crash.events if event.position >= left_out]
    return Log(tuple(lines[left_out:]), tuple(events[-MOST_EVENTS:]), left_out)

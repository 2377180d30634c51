"""The ladder: the log first, then the dump, then less and less of it, on one target after the other.

Whatever happens is told in one line with its reason, on the console and in kexec-dmesg.log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from kdumpy.capture import log
from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.journal import Journal
from kdumpy.capture.stop import Stop, Stopped
from kdumpy.capture.targets import Target, target_of
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.base import Dump
from kdumpy.errors import KdumpyError
from kdumpy.units import human_bytes

_T = TypeVar("_T")

JOURNAL = "kexec-dmesg.log"


class Outcome(IntEnum):
    """What the program exits with; the shell of the capture image goes by it."""

    COMPLETE = 0
    """All that was wanted lies on a target."""
    PARTIAL = 1
    """The log, perhaps a part of the dump."""
    NOTHING = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one run is to do."""

    vmcore: Path
    """The crashed kernel's memory, /proc/vmcore."""
    log_only: bool = False
    small: bool = False
    """With the least memory from the start: a former attempt was killed."""


class Ladder:
    """One run down the ladder."""

    def __init__(self, config: CaptureConfig, wanted: Wanted, journal: Journal, stop: Stop) -> None:
        self._config = config
        self._wanted = wanted
        self._journal = journal
        self._stop = stop
        self._log: log.CrashLog | None = None
        self._log_places: list[str] = []

    def run(self) -> Outcome:
        """Save what can be saved."""
        try:
            dump = open_dump(self._wanted.vmcore)
        except (KdumpyError, OSError) as error:
            self._say(f"cannot open the crashed kernel's memory: {told(error)}")
            return Outcome.NOTHING
        with dump:
            directory = self._look(dump)
            for url in self._config.targets:
                outcome = self._try(f"target {url}", partial(self._on_target, dump, url, directory))
                if outcome is Outcome.COMPLETE:
                    return outcome
                if self._stop.reason:
                    self._say(f"ends early: {self._stop.reason}")
                    break
        return Outcome.PARTIAL if self._log_places else Outcome.NOTHING

    def _look(self, dump: Dump) -> str:
        """Read what is small: who crashed when, and its log."""
        directory = log.directory_name(dump, self._config.path_name)
        self._say(f"{directory}: kernel {dump.vmcoreinfo.osrelease or 'of unknown release'}, "
                  f"{human_bytes(dump.pages_present * dump.page_size)} of memory")
        self._log = self._try("reading the kernel log", lambda: log.crash_log(dump))
        if self._log is not None and self._log.losses:
            self._say(f"the kernel log is not whole: {self._log.losses}")
        return directory

    def _on_target(self, dump: Dump, url: str, directory: str) -> Outcome:
        target = target_of(url, self._config, directory)
        with self._stop.interruptible():
            target.prepare()
        try:
            saved = self._save_log(target)
            if self._wanted.log_only:
                return Outcome.COMPLETE if saved else Outcome.NOTHING
            return Outcome.PARTIAL
        finally:
            self._try(f"writing {JOURNAL}", lambda: target.put(JOURNAL, self._journal.text()))
            self._try(f"closing {url}", target.close)

    def _save_log(self, target: Target) -> bool:
        if self._log is None:
            return False
        target.put(log.NAME, self._log.data)
        self._log_places.append(target.place(log.NAME))
        self._say(f"saved the kernel log, {self._log.lines} lines, to {self._log_places[-1]}")
        return True

    def _say(self, text: str) -> None:
        self._journal.say(text)

    def _try(self, what: str, do: Callable[[], _T]) -> _T | None:
        """Do one thing; when it fails, tell why and go on: no failure may end the capture."""
        try:
            return do()
        except Stopped:
            return None
        except Exception as error:
            self._say(f"{what} failed: {told(error)}")
            return None


def told(error: BaseException) -> str:
    """Return an error in one line; one that nobody expected with the place that raised it."""
    if isinstance(error, KdumpyError | Stopped):
        return str(error)
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({Path(frame[0].filename).name}:{frame[0].lineno})" if frame else ""
    return f"{type(error).__name__}: {error}{where}"

"""The ladder: the log first, then the dump, then less and less of it, on one target after the other.

Whatever happens is told in one line with its reason, on the console and in kexec-dmesg.log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from kdumpy.capture import log
from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.journal import Journal, told
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
    """The log, or a part of the dump."""
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
        self._directory = ""
        self._log: log.CrashLog | None = None
        self._saved: list[str] = []
        """Where something lies that is worth having: a log, an incomplete dump."""
        self._left_behind: list[str] = []
        """URLs of targets with an incomplete dump."""
        self._told_end = False

    def run(self) -> Outcome:
        """Save what can be saved."""
        try:
            dump = open_dump(self._wanted.vmcore)
        except (KdumpyError, OSError) as error:
            self._say(f"cannot open the crashed kernel's memory: {told(error)}")
            return Outcome.NOTHING
        with dump:
            self._look(dump)
            outcome = self._down(dump)
        if outcome is Outcome.COMPLETE:
            self._tidy()
        else:
            self._tell_end()
        return outcome

    def _look(self, dump: Dump) -> None:
        """Read what is small: who crashed when, and its log."""
        self._directory = log.directory_name(dump, self._config.path_name)
        # The image's shell finds the directory's name by this line's beginning.
        self._say(f"{self._directory}: kernel {dump.vmcoreinfo.osrelease or 'of unknown release'}, "
                  f"{human_bytes(dump.pages_present * dump.page_size)} of memory")
        self._log = self._try("reading the kernel log", partial(log.crash_log, dump))
        if self._log is not None and self._log.losses:
            self._say(f"the kernel log is not whole: {self._log.losses}")

    def _down(self, dump: Dump) -> Outcome:
        """Go from target to target."""
        targets = self._config.targets
        for number, url in enumerate(targets):
            left = len(targets) - number
            if self._stop.reason and self._saved:
                break
            if self._try(f"target {url}", partial(self._on_target, dump, url, left)):
                return Outcome.COMPLETE
        return Outcome.PARTIAL if self._saved else Outcome.NOTHING

    def _on_target(self, dump: Dump, url: str, left: int) -> bool:
        """Save to one target; return whether all that was wanted is there."""
        target = target_of(url, self._patient(left), self._directory)
        self._reach(target)
        try:
            saved = self._save_log(target)
            if self._wanted.log_only or self._stop.reason:
                return saved and self._wanted.log_only
            # What was done so far is there, too, if the capture is killed from here on.
            self._try(f"writing {JOURNAL}", lambda: target.put(JOURNAL, self._journal.text()))
            return self._save_core(dump, target, last=left == 1)
        except Stopped:
            self._tell_end()
            raise
        finally:
            self._try(f"writing {JOURNAL}", lambda: target.put(JOURNAL, self._journal.text()))
            self._try(f"closing {url}", target.close)

    def _tell_end(self) -> None:
        """Say, once, that the capture ended before its time. The image's shell looks for these words."""
        if self._stop.reason and not self._told_end:
            self._told_end = True
            self._say(f"ended early: {self._stop.reason}")

    def _patient(self, left: int) -> CaptureConfig:
        """Return the configuration with the target's share of the time: others, and the dump, need some too."""
        remaining = self._stop.remaining_s
        if remaining is None:
            return self._config
        return replace(self._config, device_wait_s=min(self._config.device_wait_s, int(remaining / (left + 1))))

    def _reach(self, target: Target) -> None:
        if self._stop.reason:  # the time is up and nothing is saved yet: a last try, for the log alone
            target.prepare()
            return
        with self._stop.interruptible():
            target.prepare()

    def _save_log(self, target: Target) -> bool:
        if self._log is None:
            return False
        target.put(log.NAME, self._log.data)
        place = target.place(log.NAME)
        self._saved.append(place)
        self._say(f"saved the kernel log, {self._log.lines} lines, to {place}")
        return True

    def _save_core(self, dump: Dump, target: Target, *, last: bool) -> bool:
        # numpy comes with it: only now, when the log is safe.
        from kdumpy.capture.attempts import CoreSaver

        saver = CoreSaver(self._config, dump, target, self._journal, self._stop)
        try:
            return saver.save(small=self._wanted.small, last_target=last)
        finally:
            if saver.left_behind:
                self._saved.append(saver.left_behind)
                self._left_behind.append(target.url)

    def _tidy(self) -> None:
        """Remove incomplete dumps from targets before the one that took it whole: their disks are full."""
        for url in self._left_behind:
            self._try(f"removing the incomplete dump on {url}", partial(self._tidy_one, url))

    def _tidy_one(self, url: str) -> None:
        from kdumpy.capture.attempts import NAME

        target = target_of(url, self._config, self._directory)
        target.prepare()
        try:
            target.discard(NAME)
            self._say(f"removed the incomplete dump on {url}")
            target.put(JOURNAL, self._journal.text())
        finally:
            target.close()

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

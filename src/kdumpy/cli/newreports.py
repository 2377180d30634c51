"""`kdumpy report --new`: after a crash, once a boot: a report beside each dump that has none, and who is to know it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.diagnosing import diagnose_arguments, write_private
from kdumpy.errors import HostError, KdumpyError
from kdumpy.units import printable

if TYPE_CHECKING:
    from kdumpy.diagnosis import Diagnosis
    from kdumpy.diagnosis.details import Details
    from kdumpy.host.crashes import Crash
    from kdumpy.host.settings import Settings
    from kdumpy.host.system import System

UNKNOWN = "unknown"
"""The cause of a diagnosis that found none."""

_TEST_S = 3600
"""A crash that was saved within this time after `kdumpy test` is taken for its."""

_MOST_CPU_S = 900
"""Seconds of CPU time for one report; each of its steps has a bound, what runs in a library has none."""


@dataclass(frozen=True)
class News:
    """A crash that was not known yet."""

    folder: str
    """Empty: the crash left nothing."""
    title: str
    cause: str
    confidence: str
    text: str
    """The report for people, or the reason why there is none."""
    asked_for: bool
    """It was `kdumpy test`."""

    @property
    def line(self) -> str:
        """The one line for the journal and the log-in."""
        known = self.cause and self.cause != UNKNOWN
        words = f"{self.title} ({self.cause}, {self.confidence})" if known else self.title
        place = f"{self.folder}: " if self.folder else ""
        return f"{place}{words}{' - this was kdumpy test' if self.asked_for else ''}"


def run_new(arguments: argparse.Namespace) -> int:
    """Report on what has no report yet; exit code 0 also when there is nothing new."""
    from kdumpy.cli.common import print_json
    from kdumpy.host import seen, settings
    from kdumpy.host.crashes import find, folders
    from kdumpy.host.system import System

    system = System()
    configured = settings.load(system)
    places = tuple(map(_place, arguments.folders)) or folders(configured.capture)
    if not arguments.folders:
        if configured.report.at_boot:
            _collect(configured, places)
        seen.remember(system, find(system, places), _last_words)
        if not configured.report.at_boot:
            return 0
    news = list(_news(system, places, html=configured.report.html))
    lost = None if arguments.folders else _not_here(system, configured)
    news += lost or []
    if arguments.json:
        print_json([{"folder": one.folder, "title": one.title, "cause": one.cause, "confidence": one.confidence,
                     "test": one.asked_for} for one in news])
    else:
        for one in news:
            print(printable(one.line))
        if not news and (arguments.folders or sys.stderr.isatty()):     # the service at boot stays silent
            print(printable(f"nothing new: every dump in {', '.join(places)} has its report"), file=sys.stderr)
    sys.stdout.flush()
    if news and not arguments.folders:
        _tell(system, configured, news)
    if lost is not None:
        _mark_told(system)
    return 0


def _collect(configured: Settings, places: tuple[str, ...]) -> None:
    """Copy crashes from bare devices to the first directory, where people look for them."""
    from kdumpy.capture.targets import devices, rawtable

    for url in configured.capture.targets:
        if not url.startswith("raw:"):
            continue
        try:
            found = devices.find(url.removeprefix("raw:"))
            table = rawtable.read(found[0]) if found else None
            if found is None or table is None or not table.entries:
                continue
            home = Path(places[0] if places else "/var/crash")
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (home / Path(table.directory).name).exists():
                print(printable(f"copied the crash on {url} to {rawtable.collect(found[0], home)}"))
        except (KdumpyError, OSError) as error:
            print(printable(f"kdumpy: {url}: {error}"), file=sys.stderr)


def _news(system: System, places: tuple[str, ...], *, html: bool) -> Iterator[News]:
    from kdumpy.host.crashes import describe, find
    from kdumpy.host.crashing import read_mark

    mark = read_mark(system)
    itself = [crash for place in places if Path(place).is_dir() and (crash := describe(Path(place), place))]
    for crash in reversed([*find(system, places), *itself]):
        if (Path(crash.path) / "report.txt").exists():
            continue
        asked_for = mark is not None and 0 <= crash.at - mark.time < _TEST_S
        news = _apart(crash, partial(_report, system, crash, html=html, asked_for=asked_for), asked_for=asked_for)
        # Whatever happened, the next boot need not try again.
        with contextlib.suppress(OSError):
            write_private(Path(crash.path) / "report.txt", news.text)
        yield news


def _place(folder: Path) -> str:
    """Return the path of a folder that was named; one that is not there is a mistake and not without news."""
    if not folder.is_dir():
        raise HostError("not a folder", where=str(folder), mend="name a folder that holds each dump in one of its own")
    return str(folder.absolute())


def _apart(crash: Crash, make: Callable[[], News], *, asked_for: bool) -> News:
    """Make the news of a dump in a process of its own: what ends that must not end the report on the others."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
            with os.fdopen(writing, "w") as file:
                json.dump(asdict(make()), file)
            os._exit(0)
        except BaseException as error:      # a bug of ours: the others' reports are made all the same
            sys.stderr.write(printable(f"kdumpy: {crash.dump}: internal error: {type(error).__name__}: {error}") + "\n")
            sys.stderr.flush()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as file:
        told = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return News(**json.loads(told))
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else "failed"
    return _without(crash, f"the program that read it {ended}", "", asked_for=asked_for)


def _not_here(system: System, configured: Settings) -> list[News] | None:
    """Return the crash before this boot if it left nothing here, with the reason: once a boot; None: not known."""
    from kdumpy.host import lastcrash

    if system.exists(_told()):
        return []
    try:
        found = lastcrash.look(system, configured.capture)
    except (KdumpyError, OSError) as error:
        print(printable(f"kdumpy: whether the last boot ended in a crash cannot be seen: {error}"), file=sys.stderr)
        return None
    if found.kind not in ("lost", "elsewhere"):
        return []
    what = found.cause or "the last boot ended without a shutdown"
    if found.kind == "lost":
        what += ", and left no dump"
    text = "".join(f"{printable(line)}\n" for line in (f"{what}: {found.why}", *found.evidence,
                                                       f"What to do: {found.mend}") if line)
    return [News("", f"{what}: {found.why}", "", "", text, asked_for=False)]


def _told() -> str:
    """Return the path of the mark that this boot's crash was told: gone with the next boot."""
    from kdumpy.host.loadcalls import RUN

    return f"{RUN}/told"


def _mark_told(system: System) -> None:
    """Set the mark, when all is told: what was cut short or could not be seen is told by the next run."""
    told = system.path(_told())
    with contextlib.suppress(OSError):
        told.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        told.touch()


def _last_words(crash: Crash) -> str:
    """Return what the kernel said last, by the log beside the dump; empty where there is none."""
    from kdumpy.crash.panicline import fatal_line

    try:
        return fatal_line(_lines(crash)) if crash.log else ""
    except OSError:
        return ""


def _report(system: System, crash: Crash, *, html: bool, asked_for: bool) -> News:
    """Write the reports beside a dump; a dump that cannot be read is told by its log's last words."""
    from kdumpy.host.lastcrash import why_not_whole

    missing, mend = ("", "") if crash.state == "complete" else why_not_whole(system, crash)
    try:
        if crash.state not in ("complete", "incomplete"):
            raise KdumpyError(missing, where=crash.path, mend=mend)
        diagnosis, details = _diagnosed(Path(crash.dump), html=html)
    except (KdumpyError, ImportError, MemoryError, OSError) as error:
        return _without(crash, str(error), missing, asked_for=asked_for)
    from kdumpy.report import json as machine
    from kdumpy.report import text as human

    folder = Path(crash.path)
    text = human.render(diagnosis, full=True) + (printable(f"\n{missing} ({mend})") + "\n" if missing else "")
    write_private(folder / "report.json", machine.render(diagnosis))
    if details is not None:
        from kdumpy.report import html as page

        write_private(folder / "report.html", page.render(diagnosis, details))
    verdict = diagnosis.verdict
    title = verdict.title
    if verdict.cause == UNKNOWN:      # what is left of a dump may not tell what the log beside it does
        title = _last_words(crash) or title
    title = f"{title}; {missing}" if missing else title
    return News(crash.path, title, verdict.cause, str(verdict.confidence), text, asked_for)


def _without(crash: Crash, why: str, missing: str, *, asked_for: bool) -> News:
    """Return the news of a dump that cannot be read, by its log's last words."""
    last = _last_words(crash)
    text = "".join(f"{printable(line)}\n" for line in (last, f"no report of the dump: {why}") if line)
    title = f"{last or 'a crash'}; {missing}" if missing else last or "a crash"
    return News(crash.path, title, "", "", text, asked_for)


def _diagnosed(dump: Path, *, html: bool) -> tuple[Diagnosis, Details | None]:
    return diagnose_arguments(argparse.Namespace(vmcore=dump, vmlinux=[], dwarf="no", html=html or None,
                                                  timeout=None))


def _lines(crash: Crash) -> list[tuple[float, str]]:
    with Path(crash.log).open(errors="replace") as file:
        return [(-1.0, line.rpartition("] ")[2]) for line in file.read(16 << 20).splitlines()]


def _tell(system: System, configured: Settings, news: list[News]) -> None:
    from kdumpy.host import telling

    name = system.value("/proc/sys/kernel/hostname") or "this host"
    if configured.report.motd:
        try:
            telling.write_motd(system, [f"{name} crashed:", *(f"  {one.line}" for one in news),
                                        "  kdumpy list shows all dumps; report.txt lies beside each"])
        except KdumpyError as error:
            print(printable(f"kdumpy: {error}"), file=sys.stderr)
    for address in configured.report.notify:
        for one in news:
            values = {"host": name, "folder": one.folder, "title": one.title, "cause": one.cause,
                      "confidence": one.confidence, "test": one.asked_for}
            try:
                telling.notify(system, address, f"{name} crashed: {one.title}", one.text, values)
            except KdumpyError as error:     # one that does not answer must not keep the others from knowing
                print(printable(f"kdumpy: not told {json.dumps(address.partition(':')[0])}: {error}"),
                      file=sys.stderr)

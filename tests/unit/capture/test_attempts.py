"""Which ways to save a dump are tried after which; the pipeline is a double here, tests/dumps has the real one."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from kdumpy.capture import attempts as module
from kdumpy.capture import pipeline
from kdumpy.capture.attempts import Attempt, CoreSaver, attempts, available_memory
from kdumpy.capture.console import Console
from kdumpy.capture.journal import Journal
from kdumpy.capture.pipeline import Options, Summary
from kdumpy.capture.stop import Stop, Stopped
from kdumpy.capture.targets import target_of
from kdumpy.dumpfile import Dump
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import DamagedDump, HostError, NoSpace
from saving import config

Progress = Callable[[int, int, int], None] | None


class FakeDump:
    page_size = 4096


class FakePlan:
    why_unfiltered = ""


@dataclass
class FakeEstimate:
    bytes: int
    plan: FakePlan = field(default_factory=FakePlan)


class Double:
    """The pipeline: fails as the test wants for an attempt, else writes its options."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: dict[str, BaseException],
                 sizes: dict[int, int] | None = None) -> None:
        self.tried: list[str] = []
        self.failures = failures
        self.sizes = sizes or {}
        monkeypatch.setattr(pipeline, "save", self.save)
        monkeypatch.setattr(pipeline, "estimate",
                            lambda dump, options, plan: FakeEstimate(self.sizes.get(options.level, 1)))
        monkeypatch.setattr(module, "available_memory", lambda: 1 << 30)

    def save(self, dump: Dump, sink: Sink, options: Options, progress: Progress, *, plan: object) -> Summary:
        name = f"{options.level} {options.compression}{' small' if options.small else ''}"
        self.tried.append(name)
        sink.write_at(0, name.encode())
        if progress is not None:
            progress(1, 10, 5)
        if name in self.failures:
            raise self.failures[name]
        return Summary(10, {}, 10, 0, 0, 0, 4096, len(name), 0.1, "")


def saver(tmp_path: Path, out: io.StringIO, stop: Stop | None = None, **values: object) -> CoreSaver:
    settings = config(**values)
    target = target_of(str(tmp_path), settings, "here")
    target.prepare()
    return CoreSaver(settings, cast(Dump, FakeDump()), target, Journal(Console(out)), stop or Stop())


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "here").iterdir())


def test_the_ways_get_smaller() -> None:
    assert list(map(str, attempts(config(level=17, compress="lzo"), small=False))) == [
        "level 17, lzo", "level 31, lzo", "level 31, lzo, least memory"]
    assert list(map(str, attempts(config(), small=False))) == ["level 31, zstd", "level 31, zstd, least memory"]
    assert list(map(str, attempts(config(), small=True))) == ["level 31, zstd, least memory"]
    assert attempts(config(level=1, compress="none", format="elf"), small=True) == [
        Attempt(1, "none", "elf", True), Attempt(31, "zstd", "kdump", True)]


def test_what_works_is_not_tried_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double, out = Double(monkeypatch, {}), io.StringIO()
    assert saver(tmp_path, out, level=1, sha256=True).save(small=False, last_target=True)
    assert double.tried == ["1 zstd"]
    assert names(tmp_path) == ["vmcore", "vmcore.sha256"]
    assert "10 of 10 pages" in out.getvalue()


@pytest.mark.parametrize(("failures", "tried", "saved"), [
    ({"1 zstd": NoSpace("full")}, ["1 zstd", "31 zstd"], True),
    ({"1 zstd": NoSpace("full"), "31 zstd": NoSpace("full")}, ["1 zstd", "31 zstd"], False),
    ({"1 zstd": MemoryError()}, ["1 zstd", "31 zstd small"], True),
    ({"1 zstd": HostError("a worker died"), "31 zstd": HostError("a worker died")},
     ["1 zstd", "31 zstd", "31 zstd small"], True),
    ({"1 zstd": DamagedDump("bad"), "31 zstd": ValueError("a bug"), "31 zstd small": OSError(5, "I/O error")},
     ["1 zstd", "31 zstd", "31 zstd small"], False),
])
def test_each_failure_leads_to_what_may_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             failures: dict[str, BaseException], tried: list[str],
                                             saved: bool) -> None:
    double, out = Double(monkeypatch, failures), io.StringIO()
    one = saver(tmp_path, out, level=1)
    assert one.save(small=False, last_target=True) is saved
    assert double.tried == tried
    assert names(tmp_path) == (["vmcore"] if saved else ["vmcore-incomplete"])
    assert one.left_behind == ("" if saved else str(tmp_path / "here" / "vmcore-incomplete"))
    assert out.getvalue().count("failed: ") == len(failures)
    if saved:
        assert (tmp_path / "here" / "vmcore").read_text() == tried[-1]
        assert "removed " in out.getvalue()
    else:
        assert "an incomplete dump, 5 bytes, is at" in out.getvalue()


@pytest.mark.parametrize(("last", "tried"), [(False, []), (True, ["31 zstd"])])
def test_what_does_not_fit_is_tried_only_when_nothing_else_is_left(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool, tried: list[str]) -> None:
    double, out = Double(monkeypatch, {}, {1: 1 << 60, 31: 1 << 59}), io.StringIO()
    assert saver(tmp_path, out, level=1).save(small=False, last_target=last) is last
    assert double.tried == tried
    assert "tries fewer pages" in out.getvalue()
    assert ("there is nothing smaller, it is tried" if last else "tries the next target") in out.getvalue()


def test_when_memory_is_short_the_first_way_is_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double, out = Double(monkeypatch, {}), io.StringIO()
    monkeypatch.setattr(module, "available_memory", lambda: 30 << 20)
    assert saver(tmp_path, out).save(small=False, last_target=True)
    assert double.tried == ["31 zstd small"]
    assert "memory is short, 30.0 MiB are available" in out.getvalue()


@pytest.mark.parametrize(("mib", "wanted", "given"), [(1024, 8, 8), (160, 8, 5), (100, 8, 2), (89, 1, 1), (60, 8, 1)])
def test_there_are_no_more_workers_than_memory_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int,
                                                        wanted: int, given: int) -> None:
    double, out = Double(monkeypatch, {}), io.StringIO()
    monkeypatch.setattr(module, "available_memory", lambda: mib << 20)
    workers = []
    fine = double.save

    def save(dump: Dump, sink: Sink, options: Options, progress: Progress, *, plan: object) -> Summary:
        workers.append(options.workers)
        return fine(dump, sink, options, progress, plan=plan)

    monkeypatch.setattr(pipeline, "save", save)
    assert saver(tmp_path, out, workers=wanted).save(small=False, last_target=True)
    assert workers == [given]
    assert ("in place of" in out.getvalue()) is (given < wanted)


def test_an_estimate_that_fails_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(dump: Dump, options: Options, plan: object) -> None:
        raise ValueError("a bug")

    _double, out = Double(monkeypatch, {}), io.StringIO()
    monkeypatch.setattr(pipeline, "estimate", fail)
    assert saver(tmp_path, out).save(small=False, last_target=True)
    assert "size cannot be told before: ValueError: a bug" in out.getvalue()


def test_what_would_take_too_long_gives_way_to_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double, out = Double(monkeypatch, {}), io.StringIO()
    monkeypatch.setattr(module, "_TRIAL_S", 0.0)
    slow = double.save

    def save(dump: Dump, sink: Sink, options: Options, progress: Progress, *, plan: object) -> Summary:
        if options.level == 1 and progress is not None:
            time.sleep(0.3)
            progress(2, 100, 1)     # 15 s for all of it
        return slow(dump, sink, options, None, plan=plan)

    monkeypatch.setattr(pipeline, "save", save)
    assert saver(tmp_path, out, Stop(8), level=1).save(small=False, last_target=True)
    assert double.tried == ["31 zstd"]
    assert re.search(r"would take too long: another \d\d+ s, and \d s are left", out.getvalue())


def test_being_stopped_leaves_the_incomplete_name_and_passes_through(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    _double, out = Double(monkeypatch, {"31 zstd": Stopped("SIGTERM came")}), io.StringIO()
    one = saver(tmp_path, out)
    with pytest.raises(Stopped):
        one.save(small=False, last_target=True)
    assert names(tmp_path) == ["vmcore-incomplete"]
    assert one.left_behind


def test_a_signal_whose_exception_was_lost_still_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double, out = Double(monkeypatch, {}), io.StringIO()
    stop = Stop()
    fine = double.save

    def save(dump: Dump, sink: Sink, options: Options, progress: Progress, *, plan: object) -> Summary:
        stop.reason = "SIGTERM came"
        return fine(dump, sink, options, progress, plan=plan)

    monkeypatch.setattr(pipeline, "save", save)
    one = saver(tmp_path, out, stop)
    with pytest.raises(Stopped):
        one.save(small=False, last_target=True)


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        2048 kB\nMemAvailable:    1024 kB\n")
    assert available_memory(tmp_path / "meminfo") == 1 << 20
    assert available_memory(tmp_path / "none") is None
    assert (available_memory() or 0) > 1 << 20

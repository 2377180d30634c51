"""The ladder on a real dump: what lands where when a target is full, gone or slow, or the program is killed."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lab
import secret_guest
from kdumpy.capture import log, pipeline
from kdumpy.capture.config import CaptureConfig, render
from kdumpy.capture.console import Console
from kdumpy.capture.journal import Journal
from kdumpy.capture.ladder import Ladder, Outcome, Wanted
from kdumpy.capture.stop import Stop
from kdumpy.capture.targets.directory import DirectoryTarget
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.dmesg import read_log
from kdumpy.errors import NotInDump
from saving import config


@pytest.fixture(scope="module")
def source() -> Path:
    """A dump whose pages were not filtered (level 1), so that a level matters."""
    return secret_guest.dump("6.12").path


def descend(settings: CaptureConfig, source: Path, *, log_only: bool = False) -> tuple[Outcome, str]:
    """Run the ladder; return its outcome and what it said."""
    out = io.StringIO()
    outcome = Ladder(settings, Wanted(source, log_only), Journal(Console(out)), Stop()).run()
    return outcome, out.getvalue()


def only(base: Path) -> Path:
    """Return the one crash below a directory."""
    found = list(base.iterdir())
    assert len(found) == 1
    assert re.fullmatch(r"laboratory-\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d", found[0].name)
    return found[0]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def assert_log(directory: Path, source: Path) -> None:
    with open_dump(source) as dump:
        expected = "\n".join(read_log(dump).lines()) + "\n"
    assert (directory / "vmcore-dmesg.txt").read_text() == expected


def test_all_is_saved_where_all_is_well(source: Path, tmp_path: Path) -> None:
    outcome, said = descend(config(targets=[str(tmp_path)], sha256=True), source)
    assert outcome is Outcome.COMPLETE
    here = only(tmp_path)
    assert files(here) == ["kexec-dmesg.log", "vmcore", "vmcore-dmesg.txt", "vmcore.sha256"]
    assert_log(here, source)
    assert subprocess.run(["sha256sum", "-c", "vmcore.sha256"], cwd=here, check=False).returncode == 0
    with open_dump(here / "vmcore") as dump, open_dump(source) as original:
        assert (dump.dump_level, dump.incomplete, dump.compression) == (31, False, "zstd")
        assert 0 < dump.pages_present < original.pages_present
    # The log is safe before anything else is begun.
    assert said.index("saved the kernel log") < said.index("saved " + str(here / "vmcore") + ":")
    steps = (here / "kexec-dmesg.log").read_text()
    assert "kdumpy: saved " + str(here / "vmcore") in steps
    assert "SHA-256" in steps


def test_only_the_log(source: Path, tmp_path: Path) -> None:
    outcome, _said = descend(config(targets=[str(tmp_path)]), source, log_only=True)
    assert outcome is Outcome.COMPLETE
    assert files(only(tmp_path)) == ["kexec-dmesg.log", "vmcore-dmesg.txt"]


def test_a_level_that_does_not_fit_gives_way_at_once(source: Path, tmpfs: Callable[[int], Path]) -> None:
    base = tmpfs(48)
    outcome, said = descend(config(targets=[str(base)], level=1), source)
    assert outcome is Outcome.COMPLETE
    assert "(level 1, zstd) takes about" in said
    assert "tries fewer pages" in said
    with open_dump(only(base) / "vmcore") as dump:
        assert (dump.dump_level, dump.incomplete) == (31, False)


def test_a_disk_that_fills_in_the_midst_gets_a_smaller_dump(source: Path, tmpfs: Callable[[int], Path],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DirectoryTarget, "free_bytes", lambda self: None)     # as where nothing tells
    base = tmpfs(48)
    outcome, said = descend(config(targets=[str(base)], level=1), source)
    assert outcome is Outcome.COMPLETE
    assert "saving the dump (level 1, zstd) failed" in said
    assert "No space left on device" in said
    assert f"removed {base}" in said
    here = only(base)
    assert files(here) == ["kexec-dmesg.log", "vmcore", "vmcore-dmesg.txt"]
    with open_dump(here / "vmcore") as dump:
        assert (dump.dump_level, dump.incomplete) == (31, False)


def test_the_next_target_takes_what_the_first_has_no_room_for(source: Path, tmpfs: Callable[[int], Path],
                                                              tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmpfs(8), tmp_path / "second"
    second.mkdir()
    monkeypatch.setattr(DirectoryTarget, "free_bytes", lambda self: None)
    outcome, said = descend(config(targets=["disk:/dev/no-such-device/x", str(first), str(second)]), source)
    assert outcome is Outcome.COMPLETE
    assert "target disk:/dev/no-such-device/x failed: " in said
    # The log lies on the first that worked, the dump on the second, and no half of it on a full disk.
    assert files(only(first)) == ["kexec-dmesg.log", "vmcore-dmesg.txt"]
    assert f"removed the incomplete dump on {first}" in said
    assert files(only(second)) == ["kexec-dmesg.log", "vmcore", "vmcore-dmesg.txt"]
    for here in (only(first), only(second)):
        assert_log(here, source)
        assert "no-such-device" in (here / "kexec-dmesg.log").read_text()
        assert f"saved {second}" in (here / "kexec-dmesg.log").read_text()


def test_where_nothing_fits_a_part_is_left_and_called_so(source: Path, tmpfs: Callable[[int], Path]) -> None:
    base = tmpfs(8)
    outcome, said = descend(config(targets=[str(base)]), source)
    assert outcome is Outcome.PARTIAL
    here = only(base)
    assert files(here) == ["kexec-dmesg.log", "vmcore-dmesg.txt", "vmcore-incomplete"]
    assert "there is nothing smaller, it is tried" in said
    assert "an incomplete dump, " in (here / "kexec-dmesg.log").read_text()
    with open_dump(here / "vmcore-incomplete") as dump:
        assert dump.incomplete
        assert dump.vmcoreinfo.osrelease.startswith("6.12")


def test_a_kernel_whose_pages_cannot_be_told_apart_is_taken_whole(source: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object) -> None:
        raise NotInDump("this kernel's struct page is not known")

    monkeypatch.setattr("kdumpy.capture.plan.PageSorter", unknown)
    outcome, said = descend(config(targets=[str(tmp_path)]), source)
    assert outcome is Outcome.COMPLETE
    assert "all memory is taken, only zero pages left out: " in said
    assert "struct page is not known" in said
    with open_dump(only(tmp_path) / "vmcore") as dump, open_dump(source) as original:
        assert dump.pages_present == original.pages_present


def test_a_log_that_cannot_be_read_does_not_keep_the_dump(source: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_arguments: object) -> None:
        raise NotInDump("no log")

    monkeypatch.setattr(log, "crash_log", unreadable)
    outcome, said = descend(config(targets=[str(tmp_path)]), source)
    assert outcome is Outcome.COMPLETE
    assert "reading the kernel log failed: no log" in said
    assert files(only(tmp_path)) == ["kexec-dmesg.log", "vmcore"]


def test_a_pipeline_that_does_not_even_load_leaves_the_log(source: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kdumpy.capture.attempts", None)
    outcome, said = descend(config(targets=[str(tmp_path)]), source)
    assert outcome is Outcome.PARTIAL
    assert "failed: ModuleNotFoundError" in said
    assert files(only(tmp_path)) == ["kexec-dmesg.log", "vmcore-dmesg.txt"]


def test_without_a_dump_or_a_target_nothing_is_saved(source: Path, tmp_path: Path) -> None:
    outcome, said = descend(config(targets=[str(tmp_path)]), tmp_path / "vmcore")
    assert outcome is Outcome.NOTHING
    assert "cannot open the crashed kernel's memory" in said
    outcome, said = descend(config(targets=["disk:/dev/no-such-device/x"]), source)
    assert outcome is Outcome.NOTHING


class Program:
    """The real program, on a dump of which level 1 with slow zlib takes some seconds."""

    def __init__(self, source: Path, folder: Path, *options: str, **settings: object) -> None:
        self.base, self.steps = folder / "crash", folder / "steps"
        file = folder / "capture.toml"
        file.write_text(render(config(**{"targets": [str(self.base)], "level": 1, "compress": "zlib", "workers": 2,
                                         **settings})))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kdumpy.capture", "--config", file, "--vmcore", source, "--journal", self.steps,
             *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line

    def end(self) -> int:
        rest, _nothing = self.process.communicate(timeout=120)
        self.said += rest
        return self.process.returncode


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def test_sigterm_leaves_the_log_and_what_there_is_of_the_dump(source: Path, tmp_path: Path) -> None:
    program = Program(source, tmp_path)
    program.read_until(" written")
    workers = children(program.process.pid)
    program.process.send_signal(signal.SIGTERM)
    assert program.end() == 1
    here = only(program.base)
    assert files(here) == ["kexec-dmesg.log", "vmcore-dmesg.txt", "vmcore-incomplete"]
    assert_log(here, source)
    with open_dump(here / "vmcore-incomplete") as dump:
        assert dump.incomplete
    steps = (here / "kexec-dmesg.log").read_text()
    assert "ended early: SIGTERM came" in steps
    assert "an incomplete dump, " in steps
    assert "Traceback" not in program.said
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_when_the_time_is_up_the_log_is_still_saved(source: Path, tmp_path: Path) -> None:
    stop, out = Stop(0.001), io.StringIO()
    time.sleep(0.01)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        stop.install()
        settings = config(targets=["disk:/dev/no-such-device/x", str(tmp_path)], device_wait_s=3600)
        outcome = Ladder(settings, Wanted(source), Journal(Console(out)), stop).run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert outcome is Outcome.PARTIAL
    assert files(only(tmp_path)) == ["kexec-dmesg.log", "vmcore-dmesg.txt"]
    assert "ended early: the time budget of 0 s is used up" in out.getvalue()


def test_an_attempt_that_was_killed_is_followed_by_a_small_one(source: Path, tmp_path: Path) -> None:
    program = Program(source, tmp_path)
    program.read_until(" written")
    program.process.kill()
    assert program.end() == -signal.SIGKILL
    assert "vmcore-incomplete" in files(only(program.base))
    again = Program(source, tmp_path, "--small", compress="zstd", level=31)
    assert again.end() == 0
    here = only(program.base)
    assert files(here) == ["kexec-dmesg.log", "vmcore", "vmcore-dmesg.txt"]
    steps = (here / "kexec-dmesg.log").read_text()
    assert steps.count("saved the kernel log") == 2
    assert "least memory" in steps
    with open_dump(here / "vmcore") as dump:
        assert not dump.incomplete


def test_a_configuration_that_is_wrong_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "capture.toml").write_text('targets = ["/x"]\nlevl = 1\n')
    done = subprocess.run([sys.executable, "-m", "kdumpy.capture", "--config", tmp_path / "capture.toml", "--vmcore",
                           source, "--journal", tmp_path / "steps"], check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert "cannot capture: " in done.stdout
    assert "did you mean level?" in done.stdout
    assert "did you mean level?" in (tmp_path / "steps").read_text()


def test_the_log_is_safe_before_numpy_is_loaded(tmp_path: Path) -> None:
    source = lab.bundled()      # not compressed, as /proc/vmcore
    code = ("import sys; from kdumpy.capture.__main__ import main; code = main(sys.argv[1:]); "
            "print(open('/proc/self/status').read()); sys.exit(bool({'numpy', 'zstandard'} & set(sys.modules)))")
    (tmp_path / "capture.toml").write_text(render(config(targets=[str(tmp_path / "crash")])))
    done = subprocess.run([sys.executable, "-c", code, "--log-only", "--config", tmp_path / "capture.toml", "--vmcore",
                           source, "--journal", tmp_path / "steps"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) < 28 << 10      # 20 MiB were measured


def test_the_shell_of_the_image_finds_what_it_looks_for(source: Path, tmp_path: Path) -> None:
    """image/files/ladder greps the steps for these words."""
    program = Program(source, tmp_path, compress="zstd", level=31)
    assert program.end() == 0
    steps = program.steps.read_text()
    assert re.search(r"^\[[ 0-9.]+\] kdumpy: (laboratory-[^ /]*): kernel ", steps, re.MULTILINE)
    assert "kdumpy: saved" in steps


def test_options_reach_the_pipeline(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = pipeline.save

    def save(*arguments: object, **more: object) -> pipeline.Summary:
        seen.append(arguments[2])
        return real(*arguments, **more)     # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "save", save)
    outcome, _said = descend(config(targets=[str(tmp_path)], level=17, compress="lzo", workers=1), source)
    assert outcome is Outcome.COMPLETE
    assert seen == [pipeline.Options(level=17, compression="lzo", workers=1)]

"""Whatever is given to `kdumpy report` and `kdumpy log`: one line that says what and where, never a traceback.

Each case runs the real command line in a forked child with a memory limit and a deadline, on a real dump
that was damaged. A child that dies by a signal, hangs, or prints a traceback fails the test.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
import re
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

import lab
from kdumpy.cli.main import main
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.dumpfile.paging import KernelMemory

CASES = int(os.environ.get("KDUMPY_DAMAGE_CASES", "2000" if lab.FULL else "200"))
"""Random corruptions: 25 of each kind, or 250 in the full matrix; 0.2 s of CPU time each."""
BUDGET = 150
"""Seconds for the random corruptions, whatever the machine; the full matrix takes as long as it takes."""
SECONDS = 20
"""A damaged dump may take no longer than this; an intact one takes 0.5 s."""
MEMORY = 1 << 30


class Outcome(NamedTuple):
    """What became of a command."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    output: str
    errors: str
    megabytes: float


class Buffered(io.TextIOWrapper):
    """A standard stream of which the bytes can be had afterwards."""

    buffer: io.BytesIO


def stream() -> Buffered:
    """Return a stream that takes the place of standard output or standard error."""
    return Buffered(io.BytesIO(), encoding="utf-8", write_through=True)


def _answer(words: tuple[str, ...], writing: int) -> None:
    """Run the command line and write its exit code, output and errors into a pipe, NUL between them."""
    out, err = stream(), stream()
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(words)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        err.write(traceback.format_exc())
        code = 99
    texts = (text.buffer.getvalue().replace(b"\0", b"") for text in (out, err))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(b"\0".join((str(code).encode(), *texts)))


def run(*words: str, seconds: float = SECONDS) -> Outcome:
    """Run the command line in a child: everything is imported already, so a run costs what the command costs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _answer(words, writing)
        finally:
            os._exit(0)             # whatever happens: a child must not go on as its parent
    os.close(writing)
    body, deadline = b"", time.monotonic() + seconds
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = pipe.read(1 << 20)
            if not part:
                break
            body += part
        else:
            os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    megabytes = usage.ru_maxrss / 1024
    if os.WIFSIGNALED(status):
        return Outcome(-os.WTERMSIG(status), "", f"killed after {seconds} s" if time.monotonic() >= deadline else "",
                       megabytes)
    code_text, output, errors = body.decode(errors="replace").split("\0")
    return Outcome(int(code_text), output, errors, megabytes)


def complaint(outcome: Outcome, *allowed: int) -> str:
    """Return what is wrong with an outcome, or an empty string."""
    if outcome.code not in (allowed or (0, 1, 3)):
        return f"exit {outcome.code}: {outcome.errors[-2000:]}"
    if "Traceback" in outcome.output + outcome.errors or "internal error" in outcome.errors:
        return f"not a message: {outcome.errors[-2000:]}"
    if outcome.code == 3 and len(outcome.errors.strip().splitlines()) != 1:
        return f"not one line: {outcome.errors[-2000:]}"
    if outcome.megabytes > MEMORY >> 20:
        return f"{outcome.megabytes:.0f} MB"
    return ""


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Import all that the commands import, once, before children are forked."""
    assert complaint(run("report", str(lab.bundled())), 0) == ""
    with contextlib.redirect_stdout(stream()):
        main(("report", str(lab.bundled())))
    # The limit that main() set is for commands, not for the tests that follow.
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """A copy of the bundled dump, to be damaged."""
    path = tmp_path / "vmcore"
    path.write_bytes(lab.bundled().read_bytes())
    yield path
    path.unlink()


@pytest.mark.parametrize(("name", "content", "word"), [
    ("empty", b"", "empty"),
    ("text", b"This is a letter, not a dump.\n" * 50, "not a"),
    ("zeros", bytes(8192), "zeros"),
    ("xz", b"\xfd7zXZ\0" + bytes(4000), "xz"),
    ("gzip", b"\x1f\x8b\x08" + bytes(4000), "gzip"),
    ("program", Path(sys.executable).read_bytes()[:200_000], ""),
    ("one byte", b"K", ""),
    ("signature only", b"KDUMP   ", ""),
    ("ELF magic only", b"\x7fELF", ""),
])
@pytest.mark.parametrize("command", ["report", "log", "info", "crash"])
def test_what_is_no_dump_is_named_in_one_line(tmp_path: Path, command: str, name: str, content: bytes,
                                              word: str) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(content)
    outcome = run(command, str(path), *(("-e", "bt") if command == "crash" else ()))
    assert complaint(outcome, 1, 3) == ""
    assert str(path) in outcome.errors
    assert word in outcome.errors
    assert len(outcome.errors.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["report", "log", "info", "crash"])
def test_a_missing_file_and_a_directory_are_named(tmp_path: Path, command: str) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        outcome = run(command, str(path), *(("-e", "bt") if command == "crash" else ()))
        assert outcome.code == 3
        assert str(path) in outcome.errors
        assert len(outcome.errors.strip().splitlines()) == 1


def test_another_machine_is_named(copy: Path) -> None:
    data = copy.read_bytes()
    at = data.index(b"x86_64\0", 0, 500)
    copy.write_bytes(data[:at] + b"sparc64"[:6] + data[at + 6 :])
    outcome = run("report", str(copy))
    assert complaint(outcome, 3) == ""
    assert "sparc6" in outcome.errors


def test_a_dump_of_a_running_guest_has_no_culprit() -> None:
    for fault in lab.LIVE:
        outcome = run("report", str(lab.dump("6.1", fault).path))
        assert outcome.code == 1
        assert complaint(outcome) == ""
        assert "running" in outcome.output


def test_an_incomplete_dump_gives_its_log(copy: Path) -> None:
    """The nearer to its end it was cut, the more: all of the log, some of it, none; and exit 1 says what is lost."""
    data, pages = copy.read_bytes(), copy.stat().st_size // 4096

    def log_of(pages_left: int) -> Outcome:
        copy.write_bytes(data[: pages_left * 4096])
        outcome = run("log", str(copy))
        assert complaint(outcome, 0, 1) == ""
        assert ("Linux version" in outcome.output) or outcome.code == 1
        if outcome.code:
            assert re.search("cut short", outcome.errors), outcome.errors
        return outcome

    outcomes = {}
    for tenth in range(1, 10, 1 if lab.FULL else 2):
        outcomes[pages * tenth // 10] = log_of(pages * tenth // 10)
        outcome = run("report", str(copy))
        assert complaint(outcome, 0, 1) == ""
        assert "The dump is damaged" in outcome.output or outcome.errors
        assert "did not crash" not in outcome.output
    whole = min(cut for cut, outcome in outcomes.items() if outcome.code == 0)
    none = max(cut for cut, outcome in outcomes.items() if not outcome.output)
    part = None
    while whole - none > 1 and part is None:            # a cut through the log's own pages
        middle = (whole + none) // 2
        outcome = log_of(middle)
        if outcome.code == 0:
            whole = middle
        elif outcome.output:
            part = outcome
        else:
            none = middle
    assert part is not None
    assert len(part.output.splitlines()) > 10
    assert re.search(r"\d+ records could not be read: .* cut short", part.errors)


@pytest.mark.parametrize("size", [1, 8, 100, 4095, 4096, 4097, 8192, 9000, 12288, 20000, 65536, 200_000])
def test_a_dump_truncated_in_its_tables_is_refused(copy: Path, size: int) -> None:
    with copy.open("r+b") as file:
        file.truncate(size)
    outcome = run("report", str(copy))
    assert complaint(outcome) == ""
    assert outcome.code in (1, 3)


Damage = Callable[[bytearray, random.Random], None]


def _flip_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(0, 0x3000)] ^= 1 << chance.randrange(8)


def _word_in_header(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(0, 0x2000) & ~3
    data[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80", chance.randbytes(4)])


def _flip_tables(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 200)):
        data[chance.randrange(0x1000, min(len(data), 0x60000))] = chance.randrange(256)


def _flip_anywhere(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3000)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _zero_a_run(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    length = min(chance.choice([512, 4096, 65536, 1 << 20, 1 << 22]), len(data) - at)
    data[at : at + length] = bytes(length)


def _move_a_page(data: bytearray, chance: random.Random) -> None:
    source, target = (chance.randrange(len(data) // 4096 - 1) * 4096 for _ in range(2))
    data[target : target + 4096] = data[source : source + 4096]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _words_anywhere(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 200)):
        at = chance.randrange(len(data) - 8) & ~7
        data[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, (1 << 64) - 1, 1 << 63, chance.getrandbits(64)]))


DAMAGE: tuple[Damage, ...] = (_flip_header, _word_in_header, _flip_tables, _flip_anywhere, _zero_a_run, _move_a_page,
                              _truncate, _words_anywhere)


def corrupted(case: int, folder: Path) -> tuple[int, str, str]:
    """Damage the bundled dump in the way of a case; return the exit code, the way, and what is wrong, if anything."""
    data = bytearray(lab.bundled().read_bytes())
    damage = DAMAGE[case % len(DAMAGE)]
    damage(data, random.Random(case))
    path = folder / f"vmcore-{os.getpid()}"
    path.write_bytes(data)
    outcome = run("report", str(path))
    return outcome.code, f"{case} {damage.__name__}", complaint(outcome)


def test_random_corruptions_are_survived(tmp_path: Path) -> None:
    """200 of them, as far as `BUDGET` seconds allow; the full matrix (`make test-all`) takes 2000, however long."""
    bad: dict[str, str] = {}
    codes: dict[int, int] = {}
    started = time.monotonic()
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for code, name, wrong in pool.imap_unordered(partial(corrupted, folder=tmp_path), range(CASES)):
            codes[code] = codes.get(code, 0) + 1
            if wrong:
                bad[name] = wrong
            if len(bad) > 9 or (time.monotonic() - started > BUDGET and not lab.FULL):
                break
    print(f"{sum(codes.values())} cases in {time.monotonic() - started:.0f} s, exit codes {codes}")
    assert bad == {}
    # Most survive with a verdict, some are refused: were it all one code, the damage would not have been damage.
    assert {0, 1} <= codes.keys()
    assert sum(codes.values()) >= min(CASES, 5 * len(DAMAGE))


class Poked(NamedTuple):
    """A dump whose kernel memory can be written to."""

    path: Path

    def poke(self, address: int, value: bytes) -> None:
        """Write to a virtual address; the bundled dump's pages are not compressed."""
        with open_dump(self.path) as dump:
            assert isinstance(dump, KdumpDump)
            physical = KernelMemory(dump).translate(address)
            pfn, offset = divmod(physical, dump.page_size)
            at = dump.descriptor(dump.bitmap.rank(pfn)).offset + offset
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(value)

    def symbol(self, name: str) -> int:
        import kdumpy

        with kdumpy.open(lab.bundled()) as kernel:
            return int(kernel.prog.symbol(name).address)

    def member(self, struct_name: str, member: str) -> int:
        import drgn

        import kdumpy

        with kdumpy.open(lab.bundled()) as kernel:
            return int(drgn.offsetof(kernel.prog.type(f"struct {struct_name}"), member))


WILD = (0, 0xDEADBEEF, 0xDEAD000000000100, (1 << 64) - 8)


@pytest.mark.parametrize("value", WILD if lab.FULL else WILD[1:3])
@pytest.mark.parametrize("victim", ["modules", "init_task.tasks", "slab_caches", "super_blocks", "prb", "mem_section",
                                    "saved_command_line", "init_task.comm", "nr_cpu_ids", "__per_cpu_offset"])
def test_a_wild_pointer_in_a_list_is_survived(copy: Path, victim: str, value: int) -> None:
    """A user's address and one that is not canonical; the full matrix also takes NULL and the end of memory."""
    dump = Poked(copy)
    name, _, member = victim.partition(".")
    address = dump.symbol(name) + (dump.member("task_struct", member) if member else 0)
    dump.poke(address, struct.pack("<Q", value))
    outcome = run("report", str(copy))
    assert complaint(outcome, 0, 1) == ""
    outcome = run("crash", str(copy), "-e", "ps; mod; bt; log; sys; foreach bt")
    assert complaint(outcome, 0, 1) == ""


@pytest.mark.parametrize("name", ["modules", "slab_caches"])
def test_a_list_that_runs_in_a_circle_ends(copy: Path, name: str) -> None:
    dump = Poked(copy)
    import kdumpy

    with kdumpy.open(lab.bundled()) as kernel:
        first = kernel.prog[name].next.value_()
    dump.poke(first, struct.pack("<Q", first))          # the first entry's next is itself
    outcome = run("crash", str(copy), "-e", "mod; kmem -s; bt")
    assert complaint(outcome, 0, 1) == ""
    assert complaint(run("report", str(copy)), 0) == ""

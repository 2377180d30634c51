"""What we write of a real dump is opened by crash, drgn and makedumpfile, and holds the same bytes and the same log."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import drgn
import numpy as np
import pytest

from kdumpy.debuginfo.dwarf import Dwarf
from kdumpy.dumpfile import Dump, open_dump
from kdumpy.dumpfile.health import State, health
from kdumpy.dumpfile.sink import FileSink, StreamSink
from kdumpy.dumpfile.splitset import SplitDump, parts
from kdumpy.kernel import open_kernel
from kdumpy.vm import debugfiles, laboratory
from synthetic import for_makedumpfile, pfns_of, write_elf, write_kdump

METHODS = ("zlib", "lzo", "snappy", "zstd", "none")
OF_THE_DISTRIBUTION = ("zlib", "lzo", "none")
"""What Debian's makedumpfile is built for."""
BY_CRASH = ("elf", "flattened", "split")  # which are none, lzo and zstd


@pytest.fixture(scope="module")
def origin() -> Iterator[Dump]:
    with open_dump(laboratory.dump("6.1", "sysrq").path) as dump:
        yield dump


@pytest.fixture(scope="module")
def written(origin: Dump, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The dump in every form: by name, the files."""
    folder = tmp_path_factory.mktemp("written")
    files: dict[str, list[Path]] = {}
    for method in METHODS:
        files[method] = [folder / method]
        with FileSink(folder / method) as sink:
            write_kdump(origin, sink, method, level=origin.dump_level or 0)
    files["elf"] = [folder / "elf"]
    with FileSink(folder / "elf") as sink:
        write_elf(origin, sink)
    for name in ("flattened", "flattened elf"):
        files[name] = [folder / name]
        with (folder / name).open("wb") as file:
            stream = StreamSink(file.write)
            if name == "flattened":
                write_kdump(origin, stream, "lzo", level=origin.dump_level or 0)
            else:
                write_elf(origin, stream)
            stream.close()
    files["split"] = []
    for number, part in enumerate(parts(origin, 3), 1):
        files["split"].append(folder / f"split-{number}")
        with FileSink(folder / f"split-{number}") as sink:
            write_kdump(origin, sink, "zstd", part=part, level=origin.dump_level or 0)
    return files


def assert_same_pages(one: Dump, two: Dump) -> None:
    pfns = pfns_of(one)
    assert np.array_equal(pfns, pfns_of(two))
    for start in range(0, len(pfns), 4096):
        batch = pfns[start:start + 4096]
        assert np.array_equal(one.read_pages(batch), two.read_pages(batch)), f"a page of {batch[0]} to {batch[-1]}"


@pytest.mark.parametrize("form", [*METHODS, "elf", "flattened", "flattened elf", "split"])
def test_read_by_ourselves(origin: Dump, written: dict[str, list[Path]], form: str) -> None:
    with open_dump(*written[form]) as copy:
        assert_same_pages(origin, copy)
        assert copy.notes == origin.notes
        assert copy.utsname == origin.utsname
        assert health(copy).state is State.COMPLETE
        assert isinstance(copy, SplitDump) is (form == "split")


@pytest.mark.parametrize("form", [*METHODS, "elf", "flattened"])
def test_read_by_drgn(origin: Dump, written: dict[str, list[Path]], form: str) -> None:
    program = drgn.Program()
    program.set_core_dump(str(written[form][0]))
    for pfn in random.Random(form).sample(pfns_of(origin).tolist(), 500):
        assert program.read(pfn * 4096, 4096, physical=True) == origin.read_physical(pfn * 4096, 4096)


@pytest.fixture(scope="module")
def answers(written: dict[str, list[Path]]) -> dict[str, str]:
    """What crash says of some forms; it takes five seconds to start, so all start together."""
    vmlinux = str(debugfiles.debug_vmlinux("6.1"))
    running = {form: subprocess.Popen(["crash", "-s", vmlinux, *map(str, written[form])], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for form in BY_CRASH}
    return {form: process.communicate("sys\nbt\nquit\n", timeout=240)[0] for form, process in running.items()}


@pytest.mark.parametrize("form", BY_CRASH)
def test_opened_by_crash(answers: dict[str, str], form: str) -> None:
    assert 'PANIC: "Kernel panic - not syncing: sysrq triggered crash"' in answers[form], answers[form]
    assert re.search(r"#\d+ \[\w+\] sysrq_handle_crash at", answers[form]), answers[form]
    assert not re.search("INCOMPLETE|read error|invalid|cannot", answers[form])


def makedumpfile(*arguments: str | Path) -> None:
    subprocess.run(["makedumpfile", *arguments], capture_output=True, timeout=120, check=True)


@pytest.mark.parametrize("form", [*OF_THE_DISTRIBUTION, "elf"])
def test_filtered_again_by_makedumpfile(origin: Dump, written: dict[str, list[Path]], form: str,
                                        tmp_path: Path) -> None:
    again = tmp_path / "again"
    makedumpfile("-d", "31", "-l", written[form][0], again)
    with open_dump(again) as copy:
        assert_same_pages(origin, copy)


def test_the_log_by_makedumpfile(origin: Dump, written: dict[str, list[Path]], tmp_path: Path) -> None:
    logs: list[str] = []
    paths = [for_makedumpfile(Path(origin.source.name), tmp_path), *written["zlib"], *written["none"], *written["elf"]]
    for path in paths:
        log = tmp_path / f"{len(logs)}.txt"
        makedumpfile("--dump-dmesg", path, log)
        logs.append(log.read_text())
    assert len(logs[0]) > 10_000
    assert set(logs) == {logs[0]}


def test_put_together_by_makedumpfile(origin: Dump, written: dict[str, list[Path]], tmp_path: Path) -> None:
    cut, whole, unrolled = tmp_path / "cut-", tmp_path / "whole", tmp_path / "unrolled"
    files = []
    for number, part in enumerate(parts(origin, 2)):
        files.append(Path(f"{cut}{number}"))
        with FileSink(files[-1]) as sink:
            write_kdump(origin, sink, "lzo", part=part, level=31)
    makedumpfile("--reassemble", *files, whole)
    with open_dump(whole) as copy:
        assert_same_pages(origin, copy)
    with written["flattened"][0].open("rb") as stream:
        subprocess.run(["makedumpfile", "-R", unrolled], stdin=stream, capture_output=True, timeout=60, check=True)
    assert unrolled.read_bytes() == written["lzo"][0].read_bytes()


def test_split_by_makedumpfile(origin: Dump, written: dict[str, list[Path]], tmp_path: Path) -> None:
    files = [tmp_path / f"vmcore-{number}" for number in (1, 2, 3)]
    makedumpfile("-d", "31", "-c", "--split", written["elf"][0], *files)
    with open_dump(files[1]) as copy:
        assert isinstance(copy, SplitDump)
        assert len(copy.parts) == 3
        assert_same_pages(origin, copy)


def test_a_split_set_is_analysed_as_one(written: dict[str, list[Path]]) -> None:
    """drgn opens a part, and knows nothing of the others."""
    with open_kernel(written["split"][1], dwarf=Dwarf.NO) as kernel:
        assert "split sets" in kernel.problems["engine"]
        assert "sysrq_handle_crash" in str(kernel.prog.crashed_thread().stack_trace())
        assert len(kernel.modules) > 3  # a module's pages lie far from the kernel's: in another part

"""No damaged header that kills the engine's C code is let through to it.

Each corruption is opened by drgn in a child with limited memory and time. All bytes of the headers were tried by
hand (a few thousand cases a format, drgn 0.3.0): claimed sizes of the notes, VMCOREINFO and erase information
killed it (SIGBUS: libkdumpfile maps beyond the end of the file), and one record of a flattened stream (SIGSEGV).
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import drgn
import pytest

import lab
from kdumpy.dumpfile import open_dump
from kdumpy.dumpfile.guard import check_for_engine
from kdumpy.dumpfile.kdump import KdumpDump
from kdumpy.errors import KdumpyError
from kdumpy.vm import laboratory

CASES = int(os.environ.get("KDUMPY_ENGINE_CASES", "120"))
SECONDS = 5
ADDRESS_SPACE = 4 << 30
RESIDENT_KIB = 500 << 10

SIZES_IN_SUB_HEADER = {"VMCOREINFO": 4096 + 40, "note section": 4096 + 56, "erase information": 4096 + 72}


@pytest.fixture(scope="module", params=["kdump", "elf", "flattened"])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of each format that may be written to."""
    fault = {"kdump": "sysrq", "elf": "live", "flattened": "live-kdump"}[request.param]
    target: Path = tmp_path_factory.mktemp("engine") / request.param
    shutil.copy(laboratory.dump("6.1", fault).path, target)
    return target


def open_with_drgn(path: Path, addresses: list[int]) -> str:
    """Return how drgn fared in a child: opened, refused, or how it died."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            program = drgn.Program()
            program.set_core_dump(str(path))
            code = 0
            for address in addresses:
                try:
                    program.read(address, 64)
                except MemoryError:
                    code = 3
                except Exception:
                    pass
        except MemoryError:
            code = 3
        except BaseException:
            pass
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss      # a child begins with its parent's pages
    if usage.ru_maxrss > inherited + RESIDENT_KIB or os.WEXITSTATUS(status) == 3:
        return "memory"
    return "refused" if os.WEXITSTATUS(status) else "opened"


def guarded(path: Path) -> bool:
    failure = None
    try:
        check_for_engine(path)
    except KdumpyError as error:
        failure = error
    assert "\n" not in str(failure or "")
    return failure is not None


def header_extents(path: Path) -> tuple[list[tuple[int, int]], list[int]]:
    """Return where the headers are in the file, and some addresses to read."""
    with open_dump(path) as dump:
        addresses = [int(value, 16) for key, value in dump.vmcoreinfo.items() if key.startswith("SYMBOL(")][:8]
        if isinstance(dump, KdumpDump) and "flattened" not in dump.format:
            sub = dump.sub_header
            return [(0, 464), (4096, 104), (sub.offset_note, sub.size_note),
                    (dump.bitmap.offset, 4096)], addresses
    return [(0, 512), (4096, 1024)], addresses


def test_what_kills_the_engine_is_refused(copy: Path) -> None:
    extents, addresses = header_extents(copy)
    assert open_with_drgn(copy, addresses) in ("opened", "refused")
    assert not guarded(copy)
    rng = random.Random(1)
    died = 0
    with copy.open("r+b") as file:
        for _ in range(CASES):
            start, size = rng.choice(extents)
            width = rng.choice((1, 4, 8))
            at = start + rng.randrange(max(size // width, 1)) * width
            file.seek(at)
            old = file.read(width)
            new = rng.choice((b"\0" * width, b"\xff" * width, b"\xff" * (width - 1) + b"\x7f",
                              b"\0" * (width - 1) + b"\x80", rng.randbytes(width)))
            try:
                file.seek(at)
                file.write(new)
                file.flush()
                outcome = open_with_drgn(copy, addresses)
                if outcome not in ("opened", "refused"):
                    died += 1
                    assert guarded(copy), f"{outcome} with {new.hex()} at {at:#x}"
            finally:
                file.seek(at)
                file.write(old)
                file.flush()
    print(f"{died} of {CASES} corruptions killed the engine")


@pytest.mark.parametrize("what", SIZES_IN_SUB_HEADER)
@pytest.mark.parametrize("size", [1 << 28, 0x7fffffff, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_sizes_that_were_seen_to_kill_it(tmp_path: Path, what: str, size: int) -> None:
    target = tmp_path / "vmcore"
    shutil.copy(laboratory.dump("6.1", "sysrq").path, target)
    with target.open("r+b") as file:
        at = SIZES_IN_SUB_HEADER[what]
        file.seek(at - 8)
        offset = struct.unpack("<Q", file.read(8))[0]
        if offset == 0:  # erase information: there is none, so give it a place
            file.seek(at - 8)
            file.write(struct.pack("<Q", 4096 + 128))
        file.seek(at)
        file.write(struct.pack("<Q", size))
    with pytest.raises(KdumpyError, match=rf"{what} (lies beyond|is too large)"):
        check_for_engine(target)


CIRCLE = """
import sys
from drgn import Object
from drgn.helpers.linux.list import list_for_each
import kdumpy
from kdumpy.errors import DamagedDump
with kdumpy.open(sys.argv[1]) as kernel:
    # A head that is not in its own list: the list behind it never comes back to it.
    head = Object(kernel.prog, "struct list_head *", kernel.prog["init_task"].tasks.next.value_() + 8)
    try:
        for entry in list_for_each(head):
            pass
    except DamagedDump as error:
        print(error.what)
"""


def test_whoever_opens_a_dump_in_python_gets_the_guards_too() -> None:
    done = subprocess.run([sys.executable, "-c", CIRCLE, str(lab.bundled())], capture_output=True, text=True,
                          timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("a list runs in a circle\n", "")

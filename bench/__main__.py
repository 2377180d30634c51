"""Time kdumpy against crash and drgn on one dump, in one run: medians, ratios, peak memory.

Every figure is a whole process, from start to end. The rounds go through all programs in turn, so
that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdumpy.vm import debugfiles, laboratory
from kdumpy.vm.faults import FAULTS, Fault

DRGN_BT = """\
import sys, drgn
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
print(prog.crashed_thread().stack_trace())
"""
CRASH_COMMANDS = "bt\nlog\nps\nquit\n"


@dataclass
class Contender:
    """A program that is timed."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    standard_input: str = ""
    shows: Sequence[str] = ()
    """Regular expressions that its output must match: who exits 0 without having done the work is not fast."""
    reads: Sequence[Path] = ()
    """The files that it is given, which a cold run finds on the disk and not in memory."""
    seconds: list[float] = field(default_factory=list)
    cold_seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def run(self, *, cold: bool = False) -> None:
        """Run it once; a failure ends the benchmark with its output.

        Cold is what an administrator meets: the dump, and the peers' debug symbols, were not read just before.
        """
        if cold:
            for path in self.reads:
                _drop_from_memory(path)
        environment = {**os.environ, "DRGN_DISABLE_PLUGINS": "*", **self.environment}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as feed:
            feed.write(self.standard_input.encode())
            feed.seek(0)
            started = time.perf_counter()
            process = subprocess.Popen(self.command, stdin=feed, stdout=output, stderr=subprocess.STDOUT,
                                       env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            (self.cold_seconds if cold else self.seconds).append(time.perf_counter() - started)
            self.memory_mb.append(usage.ru_maxrss / 1024)
            output.seek(0)
            answer = output.read().decode(errors="replace")
        if process.returncode:
            sys.exit(f"{self.name} failed:\n{answer}")
        if lacking := [words for words in self.shows if not re.search(words, answer)]:
            sys.exit(f"{self.name} exited with 0, but its output lacks {', '.join(lacking)}:\n{answer}")



def _drop_from_memory(path: Path) -> None:
    """Let the kernel forget a file's pages (they are clean, or are written first)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def contenders(vmcore: Path, vmlinux: Path, scratch: Path, fault: Fault) -> list[Contender]:
    """Return what is timed; the first is the measure of the others."""
    where = "|".join(fault.culprits)
    verdict, trace = (f"cause +{re.escape(fault.cause)}", where), ("PID:", "#0 ", where)
    script = scratch / "bt.py"
    script.write_text(DRGN_BT)
    dump, both = (vmcore,), (vmcore, vmlinux)
    ours = (sys.executable, "-m", "kdumpy", "report", "--dwarf", "no", str(vmcore))
    found = [
        Contender("kdumpy report, the dump alone", ours, {"KDUMPY_CACHE": str(scratch / "cache")}, shows=verdict,
                  reads=dump),
        Contender("kdumpy report, first dump of its kernel", ours, {"KDUMPY_CACHE": ""}, shows=verdict, reads=dump),
        Contender("kdumpy crash -e bt", (sys.executable, "-m", "kdumpy", "crash", "--dwarf", "no", str(vmcore),
                                         "-e", "bt"), {"KDUMPY_CACHE": str(scratch / "cache")}, shows=trace,
                  reads=dump),
        Contender("drgn with DWARF, bt only", (sys.executable, str(script), str(vmcore), str(vmlinux)),
                  shows=("#0 ", r"\.c:\d+"), reads=both),  # vmlinux does not name the driver's functions
    ]
    if shutil.which("crash"):
        answers, made = (*trace, "Linux version", "swapper/0"), scratch / "vmlinux"
        found += [
            Contender("crash with vmlinux: bt, log, ps", ("crash", "-s", str(vmlinux), str(vmcore)),
                      standard_input=CRASH_COMMANDS, shows=answers, reads=both),
            Contender("kdumpy vmlinux: one made of the dump",
                      (sys.executable, "-m", "kdumpy", "vmlinux", str(vmcore), "-o", str(made), "--force"),
                      {"KDUMPY_CACHE": str(scratch / "cache")}, shows=("types",), reads=dump),
            Contender("crash with that one: bt, log, ps", ("crash", "-s", str(made), str(vmcore)),
                      standard_input=CRASH_COMMANDS, shows=answers, reads=(vmcore, made)),
        ]
    return found


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--kernel", default="6.1", help="a kernel of the laboratory (default: %(default)s)")
    parser.add_argument("--fault", default="null-workqueue", help="a fault of the laboratory (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each program runs (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    dump = laboratory.dump(arguments.kernel, arguments.fault, progress=say)
    say("fetching the kernel's debug symbols for the peers…")
    vmlinux = debugfiles.debug_vmlinux(arguments.kernel)
    with tempfile.TemporaryDirectory(prefix="kdumpy-bench-") as scratch:
        programs = contenders(dump.path, vmlinux, Path(scratch), FAULTS[arguments.fault])
        for program in programs:
            program.run()                   # fills the page cache and our own; not counted
            program.seconds.clear()
            program.memory_mb.clear()
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}…")
            for program in programs:
                program.run(cold=True)
                program.run()
    if arguments.json:
        print(json.dumps([{"name": p.name, "cold_seconds": p.cold_seconds, "seconds": p.seconds,
                           "memory_mb": p.memory_mb} for p in programs]))
        return 0
    size, debug = dump.path.stat().st_size / 1e6, vmlinux.stat().st_size / 1e6
    print(f"{dump.release}, {arguments.fault}: vmcore {size:.0f} MB, vmlinux {debug:.0f} MB; "
          f"{os.cpu_count()} CPUs, Python {platform.python_version()}; median of {arguments.rounds}")
    print("cold: the dump and the debug symbols are on the disk; warm: in memory, read just before")
    print(f"{'':42}{'cold s':>8} ratio {'warm s':>10} ratio {'MB':>6}")
    cold, warm = (statistics.median(times) for times in (programs[0].cold_seconds, programs[0].seconds))
    for program in programs:
        colds, warms = statistics.median(program.cold_seconds), statistics.median(program.seconds)
        print(f"{program.name:42}{colds:8.2f} {colds / cold:5.1f} {warms:10.2f} {warms / warm:5.1f} "
              f"{max(program.memory_mb):6.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

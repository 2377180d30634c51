"""Time the shell against crash (with vmlinux) and drgn-crash (with DWARF) on the crowd: 4 GB, 3,000 tasks.

usage: python -m bench.shell [--rounds 3] [--only "ps,kmem -s"] [--level 31|1] [--without crash] [--json FILE]

Every figure is a whole process, from its start to its end, that answers one command; `start` answers none. The rounds
go through all programs in turn. Of each answer the lines that count are counted, so that who did not do the work is
not fast: a program that finds less than nine tenths of what kdumpy finds is marked with * and its figure compares
nothing; one that fails, or takes longer than --limit, is marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench import crowd
from kdumpy.vm import debugfiles

ADDRESS = r"[0-9a-f]{16}"


@dataclass(frozen=True)
class Question:
    """A command that all three know."""

    name: str
    counted: str
    """A regular expression; its matches are the answer's weight, the same in all three programs' output."""
    least: int
    """Matches that kdumpy's answer must have; fewer end the benchmark."""
    scan: bool = False
    """drgn-crash, too, goes over every page or object, and reads no counters: the target against it is 10, else 1."""
    per_program: dict[str, str] = field(default_factory=dict)
    """The command where a program calls it otherwise; "" where it has none."""


QUESTIONS = (
    Question("start", "", 0, per_program=dict.fromkeys(("kdumpy", "crash", "drgn-crash"), "")),
    Question("ps", rf"(?m)^[> ]\s*\d+\s+\d+\s+\d+\s+{ADDRESS}\s", 3000),
    Question("foreach bt", r"(?m)^\s*#\d+ \[", 20000),
    Question("bt -a", r"(?m)^\s*#\d+ \[", 5),
    Question("kmem -i", r"(?m)^\s*(?:TOTAL MEM|FREE|USED|CACHED|SLAB|COMMITTED)\s+\d+", 6),
    Question("kmem -s", rf"(?m)^{ADDRESS}\s+\d+\s+\d+\s+\d+\s+\d+\s", 80),
    Question("kmem -S task_struct", rf"(?m)^\s*\[{ADDRESS}\]", 3000, scan=True),
    Question("kmem -p", rf"(?m)^{ADDRESS}\s+[0-9a-f]+\s", 900_000, scan=True),
    Question("kmem -f", rf"(?m)^\s*\d+\s+\d+k\s+(?:[A-Z]+\s+)?{ADDRESS}\s", 30),
    Question("search 57ac6e9d", rf"(?m)^{ADDRESS}: 57ac6e9d", 3000, scan=True),
    Question("foreach vm", rf"(?m)^\s*{ADDRESS}\s+[0-9a-f]+\s+[0-9a-f]+\s+[0-9a-f]+", 20000),
    Question("foreach files", rf"(?m)^\s*\d+\s+{ADDRESS}\s", 10000),
    Question("log", r"(?m)^\[\s*\d+\.\d+\]", 300),
    Question("mod", rf"(?m)^{ADDRESS}\s+\S+", 15),
    Question("mount", rf"(?m)^{ADDRESS}\s+{ADDRESS}\s", 8),
    Question("net", rf"(?m)^\s*{ADDRESS}\s+\w+", 2),
    Question("timer", r"<\w+>", 20),
    Question("runq", r"CPU \d+ RUNQUEUE", 2),
    Question("irq", rf"(?m)^\s*\d+\s+{ADDRESS}", 20),
    Question("dev", r"\w+_fops", 5),
    Question("ipcs", rf"(?m)^{ADDRESS}\s+[0-9a-f]{{8}}\s", 100),
    Question("swap", r"/data/swap", 1),
    Question("ps -m", r"(?m)^\[.*\]\s+PID: ", 3000),
)


@dataclass
class Asked:
    """A program's answers to one question."""

    program: str
    command: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory_mb: float = 0
    count: int = 0
    failure: str = ""

    def run(self, argv: Sequence[str], text: str, question: Question, limit: float) -> None:
        """Ask once; what it says is counted."""
        if self.failure:
            return
        environment = {**os.environ, "DRGN_DISABLE_PLUGINS": "kdumpy", "PAGER": "cat"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)     # who compiles all of itself each time is not timed
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as feed:
            feed.write(text.encode())
            feed.seek(0)
            started = time.perf_counter()
            process = subprocess.Popen(argv, stdin=feed, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(limit),) * 2))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.seconds.append(time.perf_counter() - started)
            self.cpu_seconds.append(usage.ru_utime + usage.ru_stime)
            self.memory_mb = max(self.memory_mb, usage.ru_maxrss / 1024)
            output.seek(0)
            answer = output.read().decode(errors="replace")
        self.count = len(re.findall(question.counted, answer)) if question.counted else 0
        if process.returncode < 0:
            self.failure = f">{limit:.0f} s" if usage.ru_utime + usage.ru_stime > limit - 1 else \
                f"signal {-process.returncode}"
        elif question.counted and not self.count:
            said = [line.strip() for line in answer.splitlines() if "error" in line]
            self.failure = f"no answer: {said[0][:100] if said else ''}"


def programs(vmcore: Path, vmlinux: Path, without: Sequence[str]) -> dict[str, list[str]]:
    """Return the programs' command lines; commands come by standard input."""
    here = Path(sys.executable).parent
    found = {"kdumpy": [str(here / "kdumpy"), "crash", "--dwarf", "no", "--no-rc", str(vmcore)],
             "crash": ["crash", "-s", str(vmlinux), str(vmcore)],
             "drgn-crash": [str(here / "drgn-crash"), str(vmlinux), str(vmcore)]}
    if not shutil.which("crash"):
        found.pop("crash")
    return {name: argv for name, argv in found.items() if name not in without}


def main() -> int:
    """Run the rounds and print the table; exit 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.shell", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="6.1", help="a kernel of the laboratory (default: %(default)s)")
    parser.add_argument("--level", type=int, default=31, help="the crowd's dump level (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is asked, after a first time that is not "
                        "counted (with 1 there is none; default: %(default)s)")
    parser.add_argument("--only", default="", metavar="COMMAND,…", help="only these commands")
    parser.add_argument("--without", default="", metavar="PROGRAM,…", help="leave these programs out")
    parser.add_argument("--limit", type=float, default=300, help="CPU seconds that an answer may take "
                        "(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    dump = crowd.dump(arguments.kernel, arguments.level, say=say)
    found = programs(dump.path, debugfiles.debug_vmlinux(arguments.kernel), arguments.without.split(","))
    only = [name.strip() for name in arguments.only.split(",") if name.strip()]
    questions = [question for question in QUESTIONS if not only or question.name in only]
    busy = os.getloadavg()[0] > (os.cpu_count() or 1) / 2
    print(f"{dump.release}, level {dump.level}: vmcore {dump.path.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} CPUs, "
          f"load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, drgn {version('drgn')}; medians of "
          f"{arguments.rounds}; seconds are wall, (CPU); ratios of {'CPU times: it is busy' if busy else 'wall times'}")
    print(f"{'':20}{'kdumpy':>16}{'MB':>5}" + "".join(f"{name:>20}{'MB':>5} ratio" for name in list(found)[1:]))
    kept, missed = [], False
    for question in questions:
        asked = {name: Asked(name, question.per_program.get(name, question.name)) for name in found}
        warming = arguments.rounds > 1      # one that fills the page cache and our own comes first
        for number in range(arguments.rounds + warming):
            say(f"{question.name}: round {number + (not warming)} of {arguments.rounds}")
            for name, one in asked.items():
                one.run(found[name], f"{one.command}\nquit\n" if one.command else "quit\n", question, arguments.limit)
            if warming and not number:
                for one in asked.values():
                    if not one.failure:
                        one.seconds.clear()
                        one.cpu_seconds.clear()
        line, bad = _row(question, list(asked.values()), busy)
        missed |= bad
        print(line, flush=True)
        kept += [{"question": question.name, **vars(one)} for one in asked.values()]
    print("*: its answer holds less than nine tenths of kdumpy's. Targets: 10 against crash; against drgn-crash "
          "10 where it reads every page or object (#), else 1")
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    return int(missed)


def _row(question: Question, asked: Sequence[Asked], busy: bool) -> tuple[str, bool]:
    """Return the line of a question, and whether a target is missed. `busy`: CPU times are compared, not wall times."""
    ours, *peers = asked
    if ours.failure or ours.count < question.least:
        sys.exit(f"kdumpy did not answer {question.name!r}: {ours.count} of {question.least} lines {ours.failure}")
    wall, cpu = statistics.median(ours.seconds), statistics.median(ours.cpu_seconds)
    line = f"{question.name + (' #' if question.scan else ''):20}{wall:8.2f} ({cpu:5.2f}){ours.memory_mb:5.0f}"
    missed = question.name == "start" and (cpu if busy else wall) > 1
    for peer in peers:
        target = 10 if peer.program == "crash" or question.scan else 1
        walls, cpus = statistics.median(peer.seconds), statistics.median(peer.cpu_seconds)
        poor = peer.count < 0.9 * ours.count
        told = f"{walls:.2f} ({cpus:.2f})"
        if peer.failure.startswith(">"):
            told, poor = f"{peer.failure}", False
        elif peer.failure:
            told = "fails"
        ratio = cpus / cpu if busy else walls / wall
        short = ratio < target and not poor and not peer.failure
        missed |= short
        line += f"{told + ('*' if poor and not peer.failure else ''):>20}{peer.memory_mb:5.0f} {ratio:5.1f}" \
                f"{'!' if short else ''}"
    notes = [f"{one.program}: {one.failure or f'{one.count} of {ours.count}'}" for one in peers
             if (one.failure and not one.failure.startswith(">")) or one.count < 0.9 * ours.count]
    return line + (f"   [{'; '.join(notes)}]" if notes else ""), missed


if __name__ == "__main__":
    sys.exit(main())

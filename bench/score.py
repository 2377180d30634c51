"""Score the diagnosis: each dump of the laboratory and of the scoring drivers, right or wrong, how sure, how fast.

Each dump is given to a process of its own, `kdumpy report --json`, with nothing but the dump. Every verdict is
held against what stands beside its fault in kdumpy.vm.faults and kdumpy.vm.scoring*. The signatures of all dumps
are then compared in pairs: the same fault must have the same one, on every kernel and boot, and no other fault.

Exit code 1: a dump of the laboratory is judged wrongly, or a verdict is certain and wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

from kdumpy.errors import KdumpyError
from kdumpy.vm import kernels, laboratory
from kdumpy.vm.faults import FAULTS, ON_ARM64, Fault
from kdumpy.vm.laboratory import Recipe
from kdumpy.vm.scoring import SCORING
from kdumpy.vm.scoring2 import SCORING_2
from kdumpy.vm.scoring3 import SCORING_3
from kdumpy.vm.scoring4 import SCORING_4
from kdumpy.vm.scoring5 import SCORING_5

SETS = {"laboratory": FAULTS, "scoring": SCORING, "scoring2": SCORING_2, "scoring3": SCORING_3, "scoring4": SCORING_4,
        "scoring5": SCORING_5}
"""The faults by what the rules knew of them: the first set is what they were written after, the others were scored
once before any rule was changed for them (docs/scoring.md)."""

EVERYWHERE = ("sysrq", "null-workqueue")
"""The laboratory's faults that are taken on every kernel; the others only with --full on others than 6.1."""

FULL_SCORING = ("6.1", "6.12")
"""The kernels of the scoring drivers."""


@dataclass(frozen=True)
class Wanted:
    """A dump to be scored."""

    set: str
    kernel: str
    fault: Fault
    boot: int = 1
    """Which boot of the same recipe: 2 and more are further dumps of the same fault on the same kernel."""


@dataclass(frozen=True)
class Row:
    """What came of one dump."""

    set: str
    kernel: str
    boot: int
    fault: str
    bug: str
    """What makes two dumps the same bug: how the fault is brought about."""
    wanted_cause: str
    cause: str
    culprit: str
    """`function [module]`, or an empty string."""
    cause_right: bool
    culprit_right: bool
    confidence: str
    seconds: float
    """Wall time of the whole process."""
    signature: str
    key: str
    """The parts of the signature, joined."""

    @property
    def right(self) -> bool:
        """Cause and culprit are what is expected."""
        return self.cause_right and self.culprit_right

    @property
    def falsely_certain(self) -> bool:
        """It says `certain` and is wrong: what must never be."""
        return self.confidence == "certain" and not self.right


@dataclass(frozen=True)
class Pairs:
    """How well signatures tell bugs apart, counted over pairs of dumps."""

    same_bug: int
    """Pairs of dumps of the same bug."""
    same_signature: int
    """Pairs of dumps with the same signature."""
    both: int
    """Pairs that are both."""

    @property
    def precision(self) -> float:
        """Of the pairs with the same signature, how many are the same bug."""
        return self.both / self.same_signature if self.same_signature else 1.0

    @property
    def recall(self) -> float:
        """Of the pairs that are the same bug, how many have the same signature."""
        return self.both / self.same_bug if self.same_bug else 1.0


def bug_of(fault: Fault) -> str:
    """Return what makes two dumps the same bug: the same thing is done, whatever notices it.

    That is the first word that a driver is told; all that an operator asks for is one and the same.
    """
    if fault.cause == "sysrq":
        return "asked for"
    word = re.search(r"echo (\S+) >", fault.commands())
    if word:
        return f"{fault.driver}: {word[1]}"
    return f"{fault.commands()} {fault.monitor} {fault.boot if fault.before_init else ''}".strip()


def judge(wanted: Wanted, report: dict[str, object], seconds: float) -> Row:
    """Hold a report (the JSON of `kdumpy report`) against what its fault expects."""
    verdict, signature = report["verdict"], report["signature"]
    assert isinstance(verdict, dict)
    assert isinstance(signature, dict)
    fault, culprit = wanted.fault, verdict.get("culprit") or {}
    function, module = culprit.get("function") or culprit.get("variable") or "", culprit.get("module")
    if fault.culprits:
        culprit_right = function in fault.culprits and module == fault.module
    else:
        culprit_right = module == fault.module    # a fault without a module: no module may be blamed
    return Row(wanted.set, wanted.kernel, wanted.boot, fault.name, bug_of(fault), fault.cause, verdict["cause"],
               f"{function} [{module}]" if module else function, verdict["cause"] == fault.cause, culprit_right,
               verdict["confidence"], round(seconds, 2), signature["id"], " | ".join(signature["parts"]))


def pairs(rows: Iterable[Row]) -> Pairs:
    """Compare all dumps that crashed with all others."""
    same_bug = same_signature = both = 0
    for one, other in combinations([row for row in rows if row.wanted_cause != "none"], 2):
        bug = one.bug == other.bug
        signature = bool(one.signature) and one.signature == other.signature
        same_bug, same_signature, both = same_bug + bug, same_signature + signature, both + (bug and signature)
    return Pairs(same_bug, same_signature, both)


def split(rows: Iterable[Row]) -> Iterator[str]:
    """Describe each pair that the signatures have wrong."""
    for one, other in combinations([row for row in rows if row.wanted_cause != "none"], 2):
        same = bool(one.signature) and one.signature == other.signature
        if same != (one.bug == other.bug):
            what = "different faults, one signature" if same else "one fault, different signatures"
            yield f"{what}: {_place(one)}: {one.key}; {_place(other)}: {other.key}"


def _place(row: Row) -> str:
    return f"{row.kernel} {row.fault}" + (f" (boot {row.boot})" if row.boot > 1 else "")


def wanted(sets: Iterable[str], only: Iterable[str], *, full: bool, boots: int) -> list[Wanted]:
    """Return the dumps to score, kernel by kernel."""
    chosen = []
    for name in sets:
        for kernel in kernels.LINES:
            for fault in SETS[name].values():
                somewhere = kernel == "6.1" or fault.name in EVERYWHERE if name == "laboratory" else \
                    kernel in FULL_SCORING
                taken = kernel in fault.kernels or ("arm64" in kernel and full and fault.name in ON_ARM64)
                if not taken or kernel not in (set(only) or {kernel}) or not (full or somewhere):
                    continue
                chosen += [Wanted(name, kernel, fault, boot) for boot in range(1, boots + 1)]
    return chosen


def another_boot(number: int, recipe: Recipe) -> Recipe:
    """Return the recipe of a further boot: a parameter that nobody reads gives it a place of its own."""
    if number == 1:
        return recipe
    return replace(recipe, fault=replace(recipe.fault, boot=f"{recipe.fault.boot} kdumpy.boot={number}".strip()))


def report_of(vmcore: Path) -> tuple[dict[str, object], float]:
    """Return the report of a dump and how long it took; what fails is a report of its own."""
    command = [sys.executable, "-m", "kdumpy", "report", "--dwarf", "no", "--json", str(vmcore)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):       # 1: the dump is of a kernel that did not crash
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"verdict": {"cause": f"exit {done.returncode}: {why}", "confidence": "possible"},
                "signature": {"id": "", "parts": []}}, seconds
    answer: dict[str, object] = json.loads(done.stdout)
    return answer, seconds


def report_without_log(vmcore: Path) -> tuple[dict[str, object], float]:
    """Return what matters of the report of a dump whose log is taken away first, and how long it took."""
    from kdumpy.debuginfo.dwarf import Dwarf
    from kdumpy.diagnosis.crash import Crash
    from kdumpy.diagnosis.signature import sign
    from kdumpy.diagnosis.verdict import judge as judge_crash
    from kdumpy.kernel import open_kernel

    started = time.perf_counter()
    with open_kernel(vmcore, dwarf=Dwarf.NO) as kernel:
        crash = Crash(kernel.path, kernel, ())
        found = judge_crash(crash)
        if found is None:
            return {"verdict": {"cause": "none", "confidence": "possible"},
                    "signature": {"id": "", "parts": []}}, time.perf_counter() - started
        frame = found.finding.culprit
        culprit = {"function": frame.symbol if frame.data else frame.function, "module": frame.module} if frame else {}
        signature = sign(found.cause, found.finding, ())
    return {"verdict": {"cause": found.cause, "confidence": found.finding.confidence.value, "culprit": culprit},
            "signature": {"id": signature.id, "parts": signature.parts}}, time.perf_counter() - started


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Lay the rows out as text, a line each."""
    yield f"{'KERNEL':15}{'FAULT':22}{'CAUSE':22}{'CULPRIT':40}{'CONFIDENCE':12}{'S':>5}"
    for row in rows:
        cause = f"{'+' if row.cause_right else '-'} {row.cause}"
        culprit = f"{'+' if row.culprit_right else '-'} {row.culprit or 'none'}"
        name = row.fault + (f"/{row.boot}" if row.boot > 1 else "")
        yield (f"{row.kernel:15}{name:22}{cause:22}{culprit:40}{row.confidence:12}{row.seconds:5.2f}"
               + ("  FALSELY CERTAIN" if row.falsely_certain else ""))


def summary(rows: list[Row]) -> Iterator[str]:
    """Say the figures, a line each."""
    for name in SETS:
        mine = [row for row in rows if row.set == name]
        if not mine:
            continue
        right = sum(row.right for row in mine)
        yield (f"{name}: {right} of {len(mine)} right ({100 * right / len(mine):.1f} %), cause right "
               f"{sum(row.cause_right for row in mine)}, culprit right {sum(row.culprit_right for row in mine)}, "
               f"certain {sum(row.confidence == 'certain' for row in mine)}, "
               f"falsely certain {sum(row.falsely_certain for row in mine)}, "
               f"median {statistics.median(row.seconds for row in mine):.2f} s")
    found = pairs(rows)
    yield (f"signatures over {len(rows)} dumps: precision {100 * found.precision:.1f} % ({found.both} of "
           f"{found.same_signature} pairs with one signature are one fault), recall {100 * found.recall:.1f} % "
           f"({found.both} of {found.same_bug} pairs of one fault have one signature)")


def passed(rows: Iterable[Row]) -> bool:
    """Tell whether every dump of the laboratory is judged rightly and no verdict is falsely certain."""
    return all((row.right or row.set != "laboratory") and not row.falsely_certain for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Score, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.score", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=list(SETS), default=[], help="only this set")
    parser.add_argument("--kernel", action="append", choices=list(kernels.LINES), default=[], help="only this kernel")
    parser.add_argument("--full", action="store_true", help="every fault on every kernel it is known to work on")
    parser.add_argument("--boots", type=int, default=1, help="dumps of each fault and kernel (default: %(default)s)")
    parser.add_argument("--made", action="store_true", help="only the dumps that the laboratory has; make none")
    parser.add_argument("--without-log", action="store_true", help="take each dump's log away first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    options = parser.parse_args(arguments)
    rows, failed = [], 0
    report = report_without_log if options.without_log else report_of
    for want in wanted(options.set or SETS, options.kernel, full=options.full, boots=options.boots):
        def recipe(plan: Recipe, number: int = want.boot) -> Recipe:
            return another_boot(number, plan)

        try:
            if options.made and not laboratory.is_made(want.kernel, want.fault.name, recipe=recipe):
                continue
            dump = laboratory.dump(want.kernel, want.fault.name, recipe=recipe, progress=_say)
        except KdumpyError as error:
            failed += 1
            _say(f"{want.kernel} {want.fault.name}: {error}")
            continue
        _say(f"{want.kernel} {want.fault.name}", end="\r")
        rows.append(judge(want, *report(dump.path)))
    print(*table(rows), "", *split(rows), *summary(rows), sep="\n")
    print(f"{os.cpu_count()} CPUs, Python {platform.python_version()}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if failed:
        print(f"{failed} dumps could not be made")
    return 0 if rows and passed(rows) and not failed else 1


def _say(line: str, end: str = "\n") -> None:
    print(line.ljust(60), file=sys.stderr, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Write docs/crash-commands.md: which of drgn's crash commands work on a dump alone, kernel by kernel.

Every invocation below runs on a dump of the laboratory with nothing but the dump, and again with the kernel's
DWARF where --dwarf is given; the outputs are compared.

example:
  python tools/crash-command-table.py > docs/crash-commands.md
  python tools/crash-command-table.py --dwarf --kernel 6.1 --details
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import drgn
from crash_options import table as options_table
from drgn.helpers.linux.fs import for_each_file
from drgn.helpers.linux.mm import virt_to_page, virt_to_phys
from drgn.helpers.linux.percpu import per_cpu
from drgn.helpers.linux.pid import find_task

from kdumpy.crash.engine import Engine
from kdumpy.crash.failures import explain
from kdumpy.debuginfo.dwarf import Dwarf
from kdumpy.errors import KdumpyError, NotInDump
from kdumpy.kernel import open_kernel
from kdumpy.vm import debugfiles, laboratory

KERNELS = ("5.10", "6.1", "6.12", "newest")
FAULT = "null-workqueue"
SECONDS = 60
"""That one invocation may take."""

INVOCATIONS = """\
ascii | ascii 62696c2f7273752f
bpf | bpf -p 1 | bpf -m 1
bt | bt 1 | bt -a | bt -c 0 | bt -l | bt -d | bt -f | bt -F 1 | bt -FF 1 | bt -V
btop {physical}
dev | dev -i | dev -p
drgn prog["UTS_RELEASE"]
eval 1 + 2 | eval -b 1g | eval -l 10
files | files 1 | files -R /dev/console 1 | files -c 1 | files -d {dentry} | files -p {inode}
foreach bt | foreach 1 task -R pid | foreach kernel ps | foreach vm | foreach files | foreach active sig
foreach set | foreach 1 vtop {user}
ipcs | ipcs -s | ipcs -m | ipcs -q
irq | irq -u | irq -d | irq -b | irq -a | irq -s | irq 4
kmem -i | kmem -f | kmem -F | kmem -v | kmem -V | kmem -n | kmem -z | kmem -o | kmem -h
kmem -p {page} | kmem -m flags {page} | kmem -s | kmem -s task_struct | kmem -g
kmem -g 10000 | kmem {task} | kmem {page}
list -H modules | list -h {modules} | list -s module.name -l module.list -H modules
log | log -T | log -t
mod | mod -t
mount | mount -n 1
net | net -a
p jiffies | p init_task.pid | p -x nr_cpu_ids | p runqueues.nr_running:a
ps | ps 1 | ps -k | ps -u | ps -G | ps -s | ps -p 1 | ps -c 1 | ps -t 1 | ps -l | ps -m | ps -a 1 | ps -g 1
ps -r 1 | ps -S | ps -A | ps -H | ps -y OTHER
ptob 1000
ptov {physical}
rd linux_banner | rd -a linux_banner | rd -d {task} | rd -D {task} 4 | rd -8 linux_banner 16 | rd -16 {task}
rd -32 {task} 4 | rd -s {task} 64 | rd -S {task} 64 | rd -SS {task} 64 | rd -p {physical} | rd -x {task} 2
rd -e {task_end} {task} | rd -o 8 {task} | rd -R {task} 2
runq | runq -t | runq -T | runq -m | runq -g | runq -c 0
search -s {task} -l 1000 {task} | search -t {task} | search -c -s {task} -l 1000 init
search -p -s {physical} -l 1000 0 | search -w -s {task} -l 100 0 | search -m ffff -s {task} -l 1000 {task}
set | set 1 | set -c 0 | set -p | set radix 16 | set radix 10
sig | sig 1 | sig -l | sig -g 1
struct list_head | struct task_struct.pid,comm {task} | struct list_head modules | struct -x list_head modules
struct task_struct {task} | struct rq.nr_running runqueues:a | union sigval
* list_head | list_head modules | struct -l task_struct.tasks task_struct.pid {tasks}
swap
sym schedule | sym {text} | sym -l | sym -p schedule | sym -n schedule | sym -q flaky_poll
sys | sys config
task | task 1 | task -R pid,comm 1 | task -x 1
timer | timer -r | timer -C 0
tree -t maple {mm_mt} | tree -t rbtree {rbroot} | tree -t xarray {xarray} | tree -t radix {xarray}
vm 1 | vm
vtop {task} | vtop -u -c 1 {user} | vtop -k {text}
waitq {waitq}
whatis task_struct | whatis jiffies | whatis schedule
"""


@dataclass(frozen=True)
class Outcome:
    """What an invocation did on one dump."""

    output: str
    error: str
    """Empty when it worked."""
    seconds: float


class TooLong(Exception):
    """An invocation took longer than `SECONDS`."""


def main() -> int:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="these kernels only")
    parser.add_argument("--dump", type=Path, help="this dump instead of the laboratory's (with one --kernel)")
    parser.add_argument("--dwarf", action="store_true", help="compare with the same under DWARF (large downloads)")
    parser.add_argument("--vmlinux", action="append", default=[], metavar="KERNEL=FILE", help="DWARF given by hand")
    parser.add_argument("--details", action="store_true", help="print the differences instead of the table")
    arguments = parser.parse_args()
    columns = arguments.kernel or KERNELS
    alone, dwarf = {}, {}
    for kernel in columns:
        path = arguments.dump or dump_of(kernel)
        alone[kernel] = run_all(path, ())
        given = tuple(Path(file) for name, _, file in (text.partition("=") for text in arguments.vmlinux)
                      if name == kernel)
        files = given or (debug_files(kernel) if arguments.dwarf else ())
        dwarf[kernel] = run_all(path, files) if files else {}
    if arguments.details:
        details(columns, alone, dwarf)
    else:
        table(columns, alone, dwarf)
    return 0


def dump_of(kernel: str) -> Path:
    """Return the dump of a kernel out of the laboratory."""
    return laboratory.dump(kernel, FAULT).path


def debug_files(kernel: str) -> Sequence[Path]:
    """Return the DWARF of a kernel, or nothing where the archive has none."""
    try:
        return (debugfiles.debug_vmlinux(kernel),)
    except KdumpyError as error:
        print(f"{kernel}: no DWARF: {error}", file=sys.stderr)
        return ()


def invocations() -> Iterator[str]:
    """Yield the invocations, without the values that come out of the dump."""
    for line in INVOCATIONS.splitlines():
        yield from (part.strip() for part in line.split(" | "))


def run_all(path: Path, files: Sequence[Path]) -> dict[str, Outcome]:
    """Run every invocation on a dump."""
    with open_kernel(path, vmlinux=files, dwarf=Dwarf.NO) as kernel:
        engine = Engine(kernel)
        values = values_of(kernel.prog)
        return {line: run_one(engine, line, values) for line in invocations()}


def run_one(engine: Engine, line: str, values: dict[str, int]) -> Outcome:
    """Run one invocation; whatever fails is its outcome."""
    out, begin, failure = io.StringIO(), time.monotonic(), ""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        engine.run(fill(line, values), out)
    except TooLong:
        failure = f"takes more than {SECONDS} s"
    except Exception as error:      # the outcome of an invocation is its error, of whatever kind
        failure = str(explain(error))
    finally:
        signal.alarm(0)
    return Outcome(out.getvalue(), failure, time.monotonic() - begin)


def _too_long(*signal_and_frame: object) -> None:
    raise TooLong


def values_of(prog: drgn.Program) -> dict[str, int]:
    """Return the addresses that invocations need; one that the kernel does not have is left out."""
    init = find_task(prog, 1)
    file = next(iter(for_each_file(init)))[1]
    ways: dict[str, Callable[[], drgn.Object | int]] = {
        "task": lambda: init,
        "task_end": lambda: init.value_() + 32,
        "tasks": lambda: init.tasks.address_of_(),
        "modules": lambda: prog["modules"].next,
        "mm_mt": lambda: init.mm.mm_mt.address_of_(),
        "rbroot": lambda: per_cpu(prog["runqueues"], 0).cfs.tasks_timeline.rb_root.address_of_(),
        "xarray": lambda: file.f_mapping.i_pages.address_of_(),
        "dentry": lambda: file.f_path.dentry,
        "inode": lambda: file.f_inode,
        "page": lambda: virt_to_page(init),
        "physical": lambda: virt_to_phys(init),
        "text": lambda: prog.symbol("schedule").address,
        "user": lambda: init.mm.start_code,
        "waitq": lambda: init.signal.wait_chldexit.address_of_(),
    }
    found = {}
    for name, way in ways.items():
        with contextlib.suppress(AttributeError, LookupError, drgn.FaultError):
            found[name] = int(way())
    return found


def fill(line: str, values: dict[str, int]) -> str:
    """Return an invocation with its values.

    Raises:
        NotInDump: the kernel does not have one.
    """
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise NotInDump(f"this kernel has no {match[1]}")
        return f"{values[match[1]]:x}"

    return re.sub(r"\{(\w+)\}", value, line)


def verdict(line: str, alone: Outcome, dwarf: Outcome | None) -> str:
    """Return a cell of the table."""
    if alone.error:
        if dwarf and dwarf.error:
            return "with DWARF neither"
        return f"lacks: {shortened(alone.error)}"
    if dwarf is None:
        return "works"
    if dwarf.error:
        return "works (with DWARF not)"
    return "works" if normal(alone.output) == normal(dwarf.output) else f"works, {difference(line, alone, dwarf)}"


def shortened(error: str) -> str:
    """Return an error as it fits a cell."""
    return error.replace("|", "/").removeprefix("no variable or constant ").split(" (")[0][:90]


def normal(text: str) -> str:
    """Return an output without what differs by nature: the time of day, spaces at line ends."""
    return "\n".join(line.rstrip() for line in text.splitlines())


def nameless(text: str) -> str:
    """Return an output without the names of symbols, and with their offsets."""
    return re.sub(r"[A-Za-z_][\w.]*(?=\+\d|$)", "", text, flags=re.MULTILINE)


def difference(line: str, alone: Outcome, dwarf: Outcome) -> str:
    """Say in words in what an output with DWARF is richer."""
    ours, theirs = normal(alone.output), normal(dwarf.output)
    if "(inline)" in theirs and "(inline)" not in ours:
        return "DWARF adds inlined calls"
    if re.search(r"\.[ch]: ?\d+", theirs):
        return "DWARF adds source lines"
    if line == "bt -V":
        return "DWARF adds local variables"
    if theirs.replace(" [0])", " [])") == ours:
        return "`[0]` shows as `[]`"
    if re.sub(r"KERNEL: \S*vmlinux\S*", "KERNEL:", theirs).split() == ours.split():
        return "DWARF's file is named"
    if line == "sym -l":
        return "vmlinux lists other symbols"
    if nameless(ours) == nameless(theirs):
        return "other names of the same addresses"
    count = sum(one != other for one, other in zip_longest(ours.split("\n"), theirs.split("\n")))
    return f"{count} lines differ"


def table(columns: Sequence[str], alone: dict[str, dict[str, Outcome]], dwarf: dict[str, dict[str, Outcome]]) -> None:
    """Print the document."""
    print(_HEAD.replace("OPTIONS", "\n".join(options_table()))
          .replace("DIFFERENCES", (Path(__file__).parent / "crash-differences.md").read_text()))
    print(f"| command | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for line in invocations():
        cells = [verdict(line, alone[kernel][line], dwarf[kernel].get(line)) for kernel in columns]
        shown = line.replace("|", "\\|")
        print(f"| `{shown}` | {' | '.join(cells)} |")
    print()
    for kernel in columns:
        count = sum(not outcome.error for outcome in alone[kernel].values())
        both = [line for line, outcome in dwarf[kernel].items() if not outcome.error]
        same = sum(normal(alone[kernel][line].output) == normal(dwarf[kernel][line].output) for line in both)
        words = f"; with DWARF {len(both)}, {same} of them with the same output" if both else ""
        print(f"- {kernel}: {count} of {len(alone[kernel])} invocations work with the dump alone{words}.")


def details(columns: Sequence[str], alone: dict[str, dict[str, Outcome]], dwarf: dict[str, dict[str, Outcome]]) -> None:
    """Print what fails and what differs, for whoever mends it."""
    for kernel in columns:
        for line, outcome in alone[kernel].items():
            other = dwarf[kernel].get(line)
            if outcome.error:
                print(f"{kernel} {line}: {outcome.error}"
                      + (f"  [DWARF: {other.error or 'works'}]" if other else ""))
            elif other and not other.error and normal(outcome.output) != normal(other.output):
                pairs = zip_longest(normal(outcome.output).split("\n"), normal(other.output).split("\n"), fillvalue="")
                first, second = next(pair for pair in pairs if pair[0] != pair[1])
                print(f"{kernel} {line}: differs\n    dump:  {first[:150]}\n    DWARF: {second[:150]}")
            if outcome.seconds > 5:
                print(f"{kernel} {line}: {outcome.seconds:.1f} s")


_HEAD = """\
# The commands of the crash shell

`kdumpy crash` has crash's commands as its own (`help` lists them; each has `--json`). drgn's are run for `bt -V`
(local variables, with DWARF), `sys config` and `drgn CODE`. The last table is made by
`tools/crash-command-table.py`: every invocation of drgn's crash commands on a dump of the laboratory, with nothing
but the dump. *lacks* says what is missing; *with DWARF neither* means that drgn fails with the kernel's full debug
symbols too (a command that drgn does not support on that kernel, or pages that the dump's level left out).

## crash's options

Made by `tools/crash_options.py` out of the commands themselves. `wr` and `map` answer why they are not there, and what
to do instead.

OPTIONS

DIFFERENCES## drgn's commands, kernel by kernel

This table shows drgn's own commands, those too that kdumpy's take the place of: other tools that use drgn see them.
"""

if __name__ == "__main__":
    sys.exit(main())

"""Which of crash's options this shell has: out of the commands themselves, for docs/crash-commands.md."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from kdumpy.crash import registry
from kdumpy.crash.commands import mod

# Source: crash 9.0.2's help pages. `-s -S` are options; a word in front of them is an argument of its own.
CRASH = {
    "bt": "-a -A -n -p -c -g -r -t -T -l -e -E -f -F -v -o -O -R -s -x -d -I -S",
    "foreach": "bt vm task files net set ps sig vtop", "ps": "-k -u -G -I -Y -y -s -p -c -t -l -m -C -a -g -r -S -A -H",
    "task": "-R -x -d", "set": "-c -p -a -v", "sig": "-l -s -g", "runq": "-t -T -m -g -c", "waitq": "",
    "timer": "-r -C",
    "kmem": "-f -F -c -C -i -v -V -n -z -o -h -p -m -s -S -r -I -g -P",
    "rd": "-a -d -D -s -S -u -p -x -m -f -N -R -8 -16 -32 -64 -o -e -r",
    "search": "-s -e -l -k -K -V -u -p -t -T -m -x -c -w -h", "vtop": "-c -u -k", "pte": "", "ptov": "", "ptob": "",
    "btop": "", "vm": "-p -P -M -R -m -v -f -x -d", "swap": "",
    "struct": "-o -l -r -f -u -x -d -p -c", "list": "-o -e -s -S -l -x -d -r -B -h -O -H",
    "tree": "-t -r -s -S -o -l -p -x -d -v -N", "p": "-x -d -u", "whatis": "-o -r -m", "sym": "-l -M -m -p -n -q",
    "dis": "-r -f -l -u -d -x -s -b", "eval": "-b -l", "ascii": "",
    "files": "-d -p -n -c -R", "fuser": "", "mount": "-f -i -n", "net": "-s -S -R -a -n -N -x -d",
    "dev": "-i -p -d -D -V -v", "irq": "-u -d -b -a -s -c", "ipcs": "-s -m -M -q -n",
    "bpf": "-p -P -m -M -t -T -j -s -x -d", "sbitmapq": "-s -a -p -v -x -d", "mod": "-s -S -d -D -t -r -R -o -g",
    "sys": "-c -t -i -panic", "log": "-T -t -d -m -a -s -c -R", "mach": "-m -c -o -x -d",
    "alias": "", "extend": "-u -s", "help": "", "repeat": "", "wr": "", "gdb": "", "map": "", "rustfilt": "",
    "s390dbf": "",
}  # fmt: skip

BETTER = {
    "bt": "frames by the kernel's own unwind tables, none stale; `-FF` says which task or file an object is; `-V` "
          "shows local variables (DWARF)",
    "kmem": "`-s` and `-S` follow every list of free objects and name what is corrupt; full slabs too; `-f` the CPUs' "
            "own lists; `-c` the page cache by file; `-i` counts all pages of a slab; `-V` NUMA's counters; `--json` "
            "of `-v` tells who asked for an area, of `-z` the managed pages and the boost, of `-h` reserved and "
            "surplus pages; an address alone: whose stack it lies in",
    "search": "all pages of the dump as arrays; missing and damaged pages counted",
    "dis": "`-b` shows the bytes (crash: how many to skip behind a BUG); the instruction in which the kernel died is "
           "marked, with the registers that it uses",
    "net": "IPv6 addresses and neighbours", "runq": "`-g` shows real-time tasks that wait, too",
    "mod": "`-u` who uses which",
    "list": "a list that was torn and runs in a circle is told from one that ends", "tree": "a circle ends with where",
    "log": "`-c` on every kernel that keeps callers", "whatis": "unions are searched too", "sys": "taint in words",
    "eval": "several operators, with C's precedence, and brackets in each other",
    "repeat": "`-n COUNT` ends it", "extend": "Python files", "ps": "`--state`",
    "mount": "`-f`, `-i` on every kernel (crash: before 3.13 and 2.6.32 only)", "bpf": "names behind addresses",
    "p": "a value's number in `--json`; arrays whose length the types leave open, by the room up to the next symbol",
    "gdb": "`print`, `ptype`, `x/3i`, `info symbol` … and `p/c` are there without gdb, each answered by a command of "
           "ours; the rest of gdb says so",
    "vtop": "the area of an address of user space", "foreach": "`--json`, and `|:` on all tasks' rows",
}
"""What is more than in crash."""

LEFT_OUT: dict[tuple[str, str], str] = {}
"""Options that a command does not know, and why."""
REFUSED = {
    ("set", "-a"): "the dump says which task was active", ("sys", "-panic"): "for live systems",
    ("mach", "-o"): "for machines with OPAL firmware", ("rd", "-m"): "for Xen's machine addresses",
    ("log", "-R"): "names of Rust are shown as the kernel has them: `log | rustfilt`",
    **{("mod", option): why for option, why in mod.REFUSED.items()},
}
"""Options that are taken and answered with why a dump has no such thing."""


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield (command, its options, what is missing). What a command would leave to drgn is missing."""
    for name, text in CRASH.items():
        args = registry.command(name).args
        own = {option for argument in args if not argument.engine for option in argument.names}
        free = any(argument.keywords.get("nargs") == "..." for argument in args)
        refused = [option for option in text.split() if (name, option) in REFUSED]
        wanted = [option for option in text.split() if option not in refused]
        mine = [option for option in wanted if free or option in own]
        missing = [f"`{option}`: {LEFT_OUT[name, option]}" if (name, option) in LEFT_OUT else f"`{option}`"
                   for option in wanted if option not in mine]
        yield (name, f"`{'` `'.join(mine)}`" if mine else "the command",
               "; ".join([*missing, *(f"`{option}`: {REFUSED[name, option]}" for option in refused)]))


def table() -> Iterator[str]:
    """Yield the table's lines."""
    yield "| command | options, all with `--json` | more than crash | left out |"
    yield "|---|---|---|---|"
    for name, mine, missing in rows():
        yield f"| `{name}` | {mine} | {BETTER.get(name, '')} | {missing} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("\n".join(table()))

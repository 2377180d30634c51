"""A crowd: a guest of 4 GB with 3,000 tasks that panics, what the figures of the shell and the report are seen on.

usage: python -m bench.crowd [--level 31|1] [--fresh]     makes the dump and prints its path

The tasks are those of crowd.c: processes with several threads, with memory and files mapped, with sockets, in D
behind a frozen file system; 770 MB of page cache, 80,000 names, 600 MB of anonymous memory. The dump is taken by
kdumpy in the capture kernel and lies in the laboratory's cache.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import LabDump, Recipe
from kdumpy.vm.paths import laboratory_home, locked

SOURCE = Path(__file__).with_name("crowd.c")
TASKS = 3000
MEMORY_MIB = 4096
SECONDS = 600
"""From the trigger to the panic, under emulation on a busy machine; a minute on an idle one."""


def dump(kernel: str = "6.1", level: int = 31, *, fault: str = "null-workqueue", fresh: bool = False,
         say: Callable[[str], None] = lambda line: None) -> LabDump:
    """Return the crowd's dump of a level, from the cache or from a new boot (two to three minutes)."""
    program = build()

    def recipe(plain: Recipe) -> Recipe:
        trigger = ('mount -t ext4 "$(findfs LABEL=spare)" /mnt; '
                   f"{program.name} {TASKS} /mnt /tmp/image || echo LAB failed: the crowd; {plain.fault.commands()}")
        return replace(plain, memory_mib=MEMORY_MIB, level=level, programs=(program,), spare_mib=2048,
                       compress="zstd" if level == 31 else "lzo",
                       fault=replace(plain.fault, trigger=trigger, seconds=SECONDS))

    return laboratory.dump(kernel, fault, fresh=fresh, recipe=recipe, progress=say)


def build() -> Path:
    """Return the guest's program, linked statically; its name holds the hash of its source.

    Raises:
        LaboratoryError: there is no C compiler, or it refused.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    path = laboratory_home() / "bench" / f"crowd-{digest}"
    with locked("bench-crowd"):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial")
            command = ["cc", "-O2", "-static", "-pthread", "-o", str(partial), str(SOURCE)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise LaboratoryError("the crowd's program cannot be compiled", where=str(SOURCE),
                                      why=getattr(error, "stderr", "") or str(error),
                                      mend="tools/system-packages bench") from error
            partial.rename(path)
    return path


def main() -> int:
    """Make the dump and print its path."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="6.1", help="a kernel of the laboratory (default: %(default)s)")
    parser.add_argument("--level", type=int, default=31, help="the dump level (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make it again")
    arguments = parser.parse_args()
    made = dump(arguments.kernel, arguments.level, fresh=arguments.fresh,
                say=lambda line: print(line, file=sys.stderr, flush=True))
    print(f"{made.path}: {made.path.stat().st_size / 1e6:.0f} MB, made in {made.seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

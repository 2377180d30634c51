"""Make a debug vmlinux for crash and gdb out of a dump: no debuginfo package is needed.

It is an ELF file with the kernel's own symbols, its types as DWARF, prototypes, the variables whose types are known,
and its code and data, at the addresses that it was linked for. It has no source lines and no local variables. It
serves for every dump of the same kernel; the types of modules are those of this dump's. x86-64 only.

examples:
  kdumpy vmlinux vmcore -o vmlinux && crash vmlinux vmcore
  kdumpy vmlinux vmcore -o vmlinux --json | jq .modules
  gdb -ex 'ptype struct task_struct' vmlinux       types and code need no dump at all

kdumpy itself and drgn (with kdumpy beside it) open the dump without it. Exits with 1 when something that belongs in
it is not in the dump: the file is written, and what it lacks is said.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.capture import new_file
from kdumpy.cli.common import add_json, print_json, quiet_engine
from kdumpy.errors import UsageError
from kdumpy.units import human_bytes, human_seconds, printable

if TYPE_CHECKING:
    from kdumpy.vmlinux.making import Made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("vmcore", type=Path, metavar="VMCORE", help="the dump")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file; 1 when it lacks something."""
    from kdumpy.cli.progress import bar
    from kdumpy.debuginfo.dwarf import Dwarf
    from kdumpy.kernel import open_kernel
    from kdumpy.vmlinux.making import make_vmlinux

    started = time.monotonic()
    if str(arguments.output) == "-":
        raise UsageError("a vmlinux is not written to standard output", where="-o -", mend="name a file")
    quiet_engine()
    with (open_kernel(arguments.vmcore, dwarf=Dwarf.NO) as kernel,
          new_file(arguments.output, arguments.vmcore, force=arguments.force) as sink):
        made = make_vmlinux(kernel, sink, bar(1))
    seconds = time.monotonic() - started
    if arguments.json:
        print_json({"path": str(arguments.output), **asdict(made), "seconds": round(seconds, 3)})
    else:
        _show(made, arguments.output, arguments.vmcore, seconds)
    return 1 if made.missing_bytes or made.left_out else 0


def _show(made: Made, path: Path, vmcore: Path, seconds: float) -> None:
    of_modules = sum(made.modules.values())
    print(f"{printable(str(path))}: {human_bytes(made.bytes)} in {human_seconds(seconds)}, "
          f"{printable(made.release)}, build id {made.build_id or 'unknown'}")
    print(f"  {made.symbols:,} symbols, {made.types:,} types ({of_modules:,} of {len(made.modules)} modules)")
    print(f"  {made.functions:,} functions with their prototypes, {made.variables:,} variables with their types")
    if made.missing_bytes:
        print(f"  not in the dump, so zero: {human_bytes(made.missing_bytes)} of {human_bytes(made.image_bytes)} "
              "of code and data")
    for what, why in made.left_out.items():
        print(printable(f"  left out: {what}: {why}"))
    print(printable(f"  crash {path} {vmcore}"))
    print(printable(f"  gdb: symbol-file -o {made.kaslr_offset:#x} {path}"))

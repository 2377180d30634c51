"""`python -m kdumpy.vm`: the laboratory's own commands, for developers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdumpy.errors import KdumpyError
from kdumpy.units import human_bytes
from kdumpy.vm import bundle, debugfiles, kernels, laboratory, qemu
from kdumpy.vm.faults import FAULTS
from kdumpy.vm.laboratory import KNOWN

EXAMPLES = """examples:
  python -m kdumpy.vm list
  python -m kdumpy.vm dump 6.1 null-workqueue
  python -m kdumpy.vm dump all all
  python -m kdumpy.vm debug 6.12
  python -m kdumpy.vm bundle tests/data

Everything is kept below $KDUMPY_LAB, or ~/.cache/kdumpy/lab; delete it at any time.
exit codes: 0 good, 2 usage, 3 could not
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KdumpyError as error:
        print(f"kdumpy.vm: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kdumpy.vm", description="The laboratory of real panics.",
                                     epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the faults")
    listing.set_defaults(run=_list)
    names = commands.add_parser("kernels", help="list the kernels; downloads those that are missing")
    names.add_argument("--refresh", action="store_true", help="look again for newer ones")
    names.set_defaults(run=_kernels)
    dump = commands.add_parser("dump", help="make a dump, or find it in the cache, and print its path")
    dump.add_argument("kernel", choices=[*kernels.LINES, "all"], metavar="KERNEL",
                      help=f"one of {', '.join(kernels.LINES)}, or all")
    dump.add_argument("fault", choices=[*KNOWN, "all"], metavar="FAULT", help="a name of `list`, or all")
    dump.add_argument("--fresh", action="store_true", help="make it again")
    dump.set_defaults(run=_dump)
    debug = commands.add_parser("debug", help="fetch a kernel's vmlinux with DWARF and print its path")
    debug.add_argument("kernel", choices=list(kernels.LINES), metavar="KERNEL",
                       help=f"one of {', '.join(kernels.LINES)}")
    debug.set_defaults(run=_debug)
    pruning = commands.add_parser("prune", help="delete dumps made by recipes that have changed since")
    pruning.set_defaults(run=_prune)
    pack = commands.add_parser("bundle", help="make the small dump that lives in tests/data")
    pack.add_argument("directory", type=Path)
    pack.set_defaults(run=_bundle)
    return parser


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _list(options: argparse.Namespace) -> int:
    print(f"{'FAULT':20} {'CAUSE':20} STORY")
    for fault in KNOWN.values():
        print(f"{fault.name:20} {fault.cause:20} {fault.story}")
    return 0


def _kernels(options: argparse.Namespace) -> int:
    print(f"{'KERNEL':8} {'RELEASE':32} {'VERSION':24} SUITE")
    for name in kernels.LINES:
        kernel = kernels.get(name, refresh=options.refresh)
        print(f"{name:8} {kernel.release:32} {kernel.version:24} {kernel.suite}")
    _say(f"accelerator: {qemu.accelerator(kernel.image)}")
    return 0


def _dump(options: argparse.Namespace) -> int:
    chosen = list(kernels.LINES) if options.kernel == "all" else [options.kernel]
    faults = list(FAULTS) if options.fault == "all" else [options.fault]
    failed = 0
    for kernel in chosen:
        for fault in faults:
            if options.fault == "all" and kernel not in KNOWN[fault].kernels:
                continue
            try:
                made = laboratory.dump(kernel, fault, progress=_say, fresh=options.fresh)
            except KdumpyError as error:
                failed += 1
                _say(f"{kernel} {fault}: {error}")
                continue
            _say(f"{kernel} {fault}: {human_bytes(made.path.stat().st_size)}, {made.seconds} s")
            print(made.path)
    return 3 if failed else 0


def _debug(options: argparse.Namespace) -> int:
    _say("fetching the debug symbols (about 350 MB)…")
    print(debugfiles.debug_vmlinux(options.kernel))
    return 0


def _prune(options: argparse.Namespace) -> int:
    _say(f"{human_bytes(laboratory.prune())} freed")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    packed = bundle.make(options.directory, progress=_say)
    _say(human_bytes(packed.stat().st_size))
    print(packed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Rehearse a crash in a virtual machine: this host's kernel, capture image and command line, a real panic, the dump.

Nothing on this machine is changed. What arrives is opened with the report, and the memory that the capture took says
how small crashkernel= may be. Without a capture image of this host, or for a named kernel, kdumpy's own image for a
virtual disk takes its place.

examples:
  kdumpy rehearse                                  this host's kernel and image
  kdumpy rehearse --release 6.12.9-amd64           another installed kernel: before rebooting into it
  kdumpy rehearse --kernel vmlinuz --modules lib/modules/6.12.9-amd64
  kdumpy rehearse --crashkernel 160M               would that do?
  kdumpy rehearse --bisect                         find the smallest that does, by trying
  kdumpy rehearse --fault out-of-memory --keep out keep the dump, both kernels' console and the image

exit codes:
  0  a whole dump with the right cause arrived     1  it did not: the reason and the mend are told
  2  wrong usage                                   3  could not (QEMU is missing, no such kernel)
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.common import add_json, print_json

if TYPE_CHECKING:
    from kdumpy.cli.rehearsalsubject import Found
    from kdumpy.cli.rehearsing import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel that is not installed; with --modules")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="its modules: a directory named after its release")
    parser.add_argument("--release", metavar="RELEASE", help="an installed kernel, as `uname -r` says it; default: "
                                                             "the running one")
    parser.add_argument("--fault", default="sysrq", choices=("sysrq", "nmi", "init-exit", "out-of-memory"),
                        help="what brings the kernel down (default: %(default)s)")
    parser.add_argument("--crashkernel", metavar="SIZE", default="",
                        help="memory to reserve: 192M, ranges by this host's memory, or auto (default: as this host)")
    parser.add_argument("--memory", metavar="SIZE", default="", help="of the virtual machine (default: 1G, or more "
                                                                     "where the reservation asks for it)")
    parser.add_argument("--bisect", action="store_true",
                        help="find the smallest reservation that saves a whole dump; two to five more rehearsals")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the dump, the logs and the consoles there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Rehearse, and say what came of it."""
    from kdumpy.cli import rehearsaltext, rehearsing
    from kdumpy.host.system import unlimited

    with _workplace(arguments.keep) as work:
        found = rehearsing.find(arguments, work)
        with unlimited():
            answer = rehearsing.rehearse(found, arguments, work, rehearsaltext.progress())
        recorded = rehearsing.record(found, answer)
    if arguments.json:
        print_json(rehearsaltext.as_json(found, answer))
    else:
        sys.stdout.write(rehearsaltext.render(found, answer, kept=arguments.keep, recorded=recorded))
    return 0 if answer.good else 1


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    """Give a directory; what is worth keeping goes to `keep` when all is done, or has failed."""
    folder = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kdumpy-rehearsal-", dir=folder) as name:
        work = Path(name)
        try:
            yield work
        finally:
            if keep is not None:
                _keep(work, keep)


KEPT = ("console.log", "capture", "cmdline", "crash")
"""Of a run's directory: both kernels' console, the image as it was used, the command lines, what was saved."""


def _keep(work: Path, keep: Path) -> None:
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    for run_directory in sorted(path for path in work.iterdir() if path.is_dir()):
        target = keep / run_directory.name if run_directory.name != "run" else keep
        for name in KEPT:
            source = run_directory / name
            if source.is_dir():
                shutil.copytree(source, target / name, dirs_exist_ok=True)
            elif source.is_file():
                target.mkdir(mode=0o700, exist_ok=True)
                shutil.copyfile(source, target / name)
                (target / name).chmod(0o600)        # the image may hold keys


__all__ = ["Answer", "Found", "add_arguments", "run"]

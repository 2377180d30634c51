"""Load the capture kernel into the reserved memory: from then on a panic leaves a dump.

examples:
  kdumpy load                     what kdumpy.service does at boot
  kdumpy load --no-build          load the image as it is, without a look whether it is stale
  kdumpy load --again             load it once more, such as after a change of memory
  kdumpy load --show              what would be loaded, with its command line; nothing is done
  kdumpy load --json

The image is built anew first where the kernel, the configuration or the way to the target changed. When just that is
loaded already, nothing is done. `kdumpy status` says whether the machine is ready.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from kdumpy.cli.common import add_json, print_json
from kdumpy.units import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--no-build", action="store_true", help="do not build the image, even if it is stale")
    parser.add_argument("--again", action="store_true", help="load it even if just that is loaded")
    parser.add_argument("--call", choices=("kexec_file_load", "kexec_load"), default="",
                        help="the system call; left out: the first, or where this kernel lacks it the second")
    parser.add_argument("--show", action="store_true", help="print what would be loaded, and do nothing")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load it, and say what was done."""
    from kdumpy.host import images, kernelfile, loading, settings
    from kdumpy.host.system import System

    system = System()
    wanted = settings.load(system)
    if arguments.show:
        release = loading.target_release(system, wanted)
        kernel = kernelfile.find(system, release)
        shown = {"release": release, "kernel": kernel.path, "image": images.path_of(release),
                 "stale": images.stale(system, wanted, release),
                 "cmdline": loading.cmdline_for(system, wanted, kernel)}
        if arguments.json:
            print_json(shown)
        else:
            print(printable("\n".join(f"{name:8} {value}" for name, value in shown.items() if value)))
        return 0
    done = loading.load(system, wanted, _say, build=not arguments.no_build, again=arguments.again,
                        call=arguments.call)
    if arguments.json:
        print_json(asdict(done))
    return 0


def _say(line: str) -> None:
    # On standard error: in a unit both go to the journal, and JSON stays alone on standard output.
    print(printable(f"kdumpy: {line}"), file=sys.stderr, flush=True)

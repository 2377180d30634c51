"""Take the capture kernel out of the reserved memory: from then on a panic leaves no dump.

examples:
  kdumpy unload
  kdumpy unload --json

The memory stays reserved; `kdumpy load` puts it back.
"""

from __future__ import annotations

import argparse
import sys

from kdumpy.cli.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Unload it; that there was none is no failure."""
    from kdumpy.host import loading
    from kdumpy.host.system import System

    was_loaded = loading.unload(System(), lambda line: print(f"kdumpy: {line}", file=sys.stderr))
    if arguments.json:
        print_json({"was_loaded": was_loaded})
    return 0

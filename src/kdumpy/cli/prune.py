"""Remove old dumps, as [retention] in /etc/kdumpy.toml says: by number, by age, by room. The newest always stays.

kdumpy-report.service does it once a boot.

examples:
  kdumpy prune --dry-run           what would go, and why
  kdumpy prune --keep 3            keep the three newest, this time
  kdumpy prune --json

exit codes: 0 done, or nothing to do; 2 wrong usage; 3 something could not be removed
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from kdumpy.cli.common import add_json, print_json
from kdumpy.errors import HostError
from kdumpy.units import human_bytes, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="show what would be removed, remove nothing")
    for name, meaning in (("keep", "dumps that are kept; 0: any number"),
                          ("max-age-days", "older dumps are removed; 0: none"),
                          ("min-free-percent", "part of the file system that is to be free")):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{meaning} (instead of the configured)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose, show, remove."""
    from kdumpy.capture import declared
    from kdumpy.host import retention, settings
    from kdumpy.host.crashes import folders
    from kdumpy.host.system import System

    system = System()
    configured = settings.load(system)
    asked = {name: value for name in ("keep", "max_age_days", "min_free_percent")
             if (value := getattr(arguments, name)) is not None}
    rules = replace(configured.retention, **asked)
    declared.check(rules)
    chosen = retention.choose(system, folders(configured.capture), rules, time.time())
    failures = []
    for removal in chosen:
        line = f"{removal.crash.path} ({human_bytes(removal.crash.bytes)}): {removal.why}"
        try:
            if not arguments.dry_run:
                retention.remove(system, removal)
        except HostError as error:
            failures.append(str(error))
            print(printable(f"kdumpy: {error}"), file=sys.stderr)
            continue
        if not arguments.json:
            print(printable(f"{'would remove' if arguments.dry_run else 'removed'} {line}"))
    if arguments.json:
        print_json({"removed": [{"path": one.crash.path, "bytes": one.crash.bytes, "why": one.why} for one in chosen],
                    "dry_run": arguments.dry_run, "failures": failures})
    elif not chosen:
        print("nothing to remove")
    return 3 if failures else 0

"""Save a crash: what runs in the capture kernel. The shell around it does the final action.

examples:
  python3 -m kdumpy.capture                   log and dump, as /etc/kdumpy-capture.toml says
  python3 -m kdumpy.capture --small           the same with the least memory
  python3 -m kdumpy.capture --log-only        only the crashed kernel's log

exit codes: 0 complete, 1 only a part (the log, or less), 2 usage, 3 nothing could be saved
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdumpy.capture import config, journal
from kdumpy.capture.console import Console
from kdumpy.capture.ladder import Ladder, Outcome, Wanted
from kdumpy.capture.stop import Stop
from kdumpy.errors import KdumpyError


def parser() -> argparse.ArgumentParser:
    """Return the arguments."""
    made = argparse.ArgumentParser(prog="kdumpy.capture", description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", type=Path, default=config.DEFAULT_PATH, metavar="FILE",
                      help="the configuration (default %(default)s)")
    made.add_argument("--vmcore", type=Path, default=Path("/proc/vmcore"), metavar="FILE",
                      help="the crashed kernel's memory (default %(default)s)")
    made.add_argument("--log-only", action="store_true", help="save the kernel log and nothing else")
    made.add_argument("--small", action="store_true", help="use as little memory as can be")
    made.add_argument("--journal", type=Path, default=journal.DEFAULT_PATH, metavar="FILE",
                      help="where the steps are kept that end up in kexec-dmesg.log (default %(default)s)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ladder; return the exit code."""
    given = parser().parse_args(arguments)
    steps = journal.Journal(Console(sys.stdout), given.journal)
    try:
        settings = config.load(given.config)
    except KdumpyError as error:
        steps.say(f"cannot capture: {error}")
        return Outcome.NOTHING
    stop = Stop(settings.time_budget_s)
    stop.install()
    return Ladder(settings, Wanted(given.vmcore, given.log_only, given.small), steps, stop).run()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""`make demo`: from a real panic to its verdict. First on a dump that lies here, then on a fresh one.

The first needs nothing but the installed kdumpy. The second boots a Debian kernel in a virtual machine,
loads a faulty driver, lets it panic, and has kdump take the dump: about a minute, and some packages.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
KERNEL, FAULT = "6.1", "null-procread"


def say(line: str = "") -> None:
    """Print a line of progress at once."""
    print(f"==> {line}" if line else "", flush=True)


def report(vmcore: Path) -> int:
    """Run `kdumpy report` as a user does, say what it took, and write the page too."""
    say(f"kdumpy report {vmcore}")
    started = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", "kdumpy", "report", str(vmcore)], check=False).returncode
    say(f"that took {time.perf_counter() - started:.2f} s, with nothing but the dump")
    page = vmcore.with_name("report.html")
    if subprocess.run([sys.executable, "-m", "kdumpy", "report", str(vmcore), "--html", str(page)], check=False,
                      stdout=subprocess.DEVNULL).returncode == code:
        say(f"the same as a page, with every task, the log and the code; open it in a browser: {page}")
    return code


def main() -> int:
    """Show both; return the exit code of the last."""

    from kdumpy.errors import KdumpyError
    from kdumpy.vm import bundle, laboratory

    say("1 of 2: a dump that lies in this repository: a kernel work queue followed a NULL pointer")
    code = report(bundle.unpack(HERE / "tests" / "data"))
    say()
    say(f"2 of 2: now live: Debian's kernel {KERNEL} panics in a virtual machine (a minute or two)")
    packages = subprocess.run([HERE / "tools" / "system-packages", "lab"], check=False)
    if packages.returncode:
        say("the virtual machine's programs are missing (see above), so the live half is left out")
        return code
    try:
        dump = laboratory.dump(KERNEL, FAULT, progress=say, fresh=True)
    except KdumpyError as error:
        say(f"the virtual machine did not give a dump: {error}")
        return 3
    say(f"the kernel has panicked and its dump is here: {dump.path}")
    return report(dump.path)


if __name__ == "__main__":
    sys.exit(main())

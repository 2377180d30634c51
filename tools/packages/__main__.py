"""Build the packages for servers.

usage: python -m tools.packages [deb] [rpm] [--out DIRECTORY] [--python 3.12] [--machine aarch64]

Without a kind, both are built. Sizes are printed. docs/packaging.md tells what is in them and why.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tools.packages import deb, rpm, tree
from tools.packages.target import MACHINES, ROOT, here

KINDS = {"deb": (deb.build, "dpkg-deb"), "rpm": (rpm.build, "rpmbuild")}
"""Kind → who builds it, and the program that is needed for it."""


def main() -> int:
    """Build what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.packages", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="deb, rpm")
    parser.add_argument("--out", type=Path, default=ROOT / "build/packages", help="where the packages get")
    parser.add_argument("--python", default="",
                        help="such as 3.12; else that of /usr/bin/python3")
    parser.add_argument("--machine", default="", choices=sorted(MACHINES), help="this machine's kind")
    parser.add_argument("--fast", action="store_true", help="compress quickly: for tests")
    arguments = parser.parse_args()
    kinds = arguments.kinds or list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            parser.error(f"no such kind of package: {kind}")
        if shutil.which(KINDS[kind][1]) is None:
            sys.exit(f"packages: {KINDS[kind][1]} is missing: install it (tools/system-packages packages)")
    target = here(arguments.python, arguments.machine, fast=arguments.fast)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"packages: kdumpy {target.version} for Python {target.python} on {target.machine}")
    with tempfile.TemporaryDirectory(prefix="kdumpy-packages-") as place:
        root = Path(place, "root")
        root.mkdir()
        tree.build(root, target)
        print(f"packages: {tree.size(root) / 1e6:.1f} MB installed")
        for kind in kinds:
            package = KINDS[kind][0](root, arguments.out.resolve(), target)
            print(f"packages: {package.stat().st_size / 1e6:.1f} MB {package}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the capture image: what the kernel boots that saves a crash.

examples:
  kdumpy image                    build it if anything changed that it is made of
  kdumpy image --force            build it in any case
  kdumpy image --check            only say whether it is fresh: exit code 1 if not
  kdumpy image --kernel 6.1.0-44-amd64
  kdumpy image --output /tmp/x    write it elsewhere, to look at it

It holds what the targets of /etc/kdumpy.toml take, and no more: docs/capture-image.md. The old one stays until the
new one is whole.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdumpy.cli.common import add_json, print_json
from kdumpy.errors import HostError, UsageError
from kdumpy.host import images, settings
from kdumpy.host.images import BuiltImage
from kdumpy.host.system import System
from kdumpy.units import human_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--check", action="store_true", help="build nothing; exit code 1 when it is to be built again")
    parser.add_argument("--force", action="store_true", help="build it although nothing has changed")
    parser.add_argument("--kernel", default="", metavar="RELEASE",
                        help="the capture kernel, as `uname -r` says it; default: that of /etc/kdumpy.toml, else the "
                             "running one")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the image to a file; the host's own stays")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build it, or say what would be done."""
    if arguments.check and (arguments.force or arguments.output):
        raise UsageError("--check builds nothing", mend="leave out --force and --output")
    system = System()
    chosen = settings.load(system)
    release = arguments.kernel or chosen.image.kernel or os.uname().release
    if os.geteuid() != 0:
        raise HostError("only root can do that", why="the image holds keys, and the state of kdumpy is root's",
                        mend=f"sudo kdumpy image{' --check' if arguments.check else ''}")
    why = images.stale(system, chosen, release)
    if arguments.check:
        return _check(system, release, why, as_json=arguments.json)
    image = images.load(system, release)
    if why or arguments.force or arguments.output or image is None:
        say = (lambda line: None) if arguments.json else (lambda line: print(f"kdumpy: {line}", file=sys.stderr))
        image = images.build(system, chosen, release, say, arguments.output)
        _show(image, f"built: {why or 'as wanted'}", as_json=arguments.json)
    else:
        _show(image, "fresh", as_json=arguments.json)
    return 0


def _check(system: System, release: str, why: str, *, as_json: bool) -> int:
    image = images.load(system, release)
    if as_json:
        print_json({"fresh": not why, "why": why, "image": None if image is None else _values(image)})
    else:
        print(f"{images.path_of(release)}: {f'to be built: {why}' if why else 'fresh'}")
    return 1 if why else 0


def _values(image: BuiltImage) -> dict[str, Any]:
    values = asdict(image)
    del values["ingredients"]
    return values


def _show(image: BuiltImage, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"state": state, **_values(image)})
        return
    rows = (("image", f"{image.path} ({state})"), ("kernel", image.release),
            ("size", f"{human_bytes(image.bytes)}, {human_bytes(image.unpacked)} unpacked"),
            ("builder", f"{image.builder}: {image.why_builder}"),
            ("targets", ", ".join(image.targets)), ("modules", " ".join(image.modules) or "none: all is built in"))
    for name, value in rows:
        print(f"{name:8} {value}")

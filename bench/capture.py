"""Time `kdumpy capture` against makedumpfile on one ELF vmcore of a large guest, in one run.

Every figure is a whole process, from start to end, the interpreter's start included. All read the same file,
which is in memory, and write to a tmpfs: what is compared is the programs and not the disk. The rounds go
through all programs in turn, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import big_guest
from bench.timing import Run, run


@dataclass
class Contender:
    """A way to write a dump."""

    name: str
    command: Sequence[str]
    """SOURCE and TARGET stand for the files."""
    peer: str
    """The contender that it is compared with; its own name for a peer."""
    runs: list[Run] = field(default_factory=list)
    size: int = 0

    @property
    def seconds(self) -> float:
        """Return the median."""
        return statistics.median(one.seconds for one in self.runs)


def contenders(makedumpfile: str) -> list[Contender]:
    """Return what is timed."""
    def peer(name: str, *options: str) -> Contender:
        return Contender(name, (makedumpfile, "--message-level", "0", *options, "SOURCE", "TARGET"), name)

    def ours(peer_name: str, *options: str) -> Contender:
        return Contender(f"kdumpy {' '.join(options)}",
                         (sys.executable, "-m", "kdumpy", "capture", *options, "SOURCE", "TARGET"), peer_name)

    return [peer("makedumpfile -c -d 31", "-c", "-d", "31"),
            ours("makedumpfile -c -d 31", "-d", "31", "--compress", "zlib"),
            peer("makedumpfile -l -d 31", "-l", "-d", "31"),
            ours("makedumpfile -l -d 31", "-d", "31", "--compress", "lzo"),
            ours("makedumpfile -l -d 31", "-d", "31", "--compress", "zstd"),
            ours("makedumpfile -l -d 31", "-d", "31", "--compress", "snappy"),
            peer("makedumpfile -l -d 1", "-l", "-d", "1"),
            ours("makedumpfile -l -d 1", "-d", "1", "--compress", "lzo"),
            ours("makedumpfile -l -d 1", "-d", "1", "--compress", "zstd"),
            ours("makedumpfile -l -d 1", "-d", "1", "--compress", "snappy")]


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.capture", description=__doc__)
    parser.add_argument("--vmcore", type=Path, help="an ELF vmcore (default: a guest of 3.3 GB, made when missing)")
    parser.add_argument("--makedumpfile", default="makedumpfile", help="the peer (default: the one on PATH)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program runs (default: %(default)s)")
    parser.add_argument("--only", default="", help="run only contenders with this in their name, and their peers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    vmcore = arguments.vmcore or big_guest.vmcore(say=say)
    programs = contenders(arguments.makedumpfile)
    if arguments.only:
        chosen = [one for one in programs if arguments.only in one.name]
        programs = [one for one in programs if one in chosen or any(one.name == other.peer for other in chosen)]
    with vmcore.open("rb", buffering=0) as file:    # into memory
        while file.read(16 << 20):
            pass
    with tempfile.TemporaryDirectory(prefix="kdumpy-bench-", dir="/dev/shm") as scratch:
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}…")
            for program in programs:
                target = Path(scratch, "dump")
                words = {"SOURCE": str(vmcore), "TARGET": str(target)}
                program.runs.append(run([words.get(word, word) for word in program.command],
                                        {"PYTHONDONTWRITEBYTECODE": ""}))
                program.size = target.stat().st_size
                target.unlink()
    if arguments.json:
        print(json.dumps([{"name": one.name, "seconds": [each.seconds for each in one.runs], "bytes": one.size,
                           "memory_mb": [each.memory_mb for each in one.runs]} for one in programs]))
        return 0
    version = subprocess.run([arguments.makedumpfile, "-v"], capture_output=True, text=True, check=False).stdout
    print(f"{vmcore.name}: {vmcore.stat().st_size / 1e9:.2f} GB; {version.splitlines()[0] if version else ''}; "
          f"{os.cpu_count()} CPUs, Python {platform.python_version()}; median of {arguments.rounds}")
    by_name = {one.name: one for one in programs}
    print(f"{'':34}{'s':>7} {'ratio':>6} {'MB':>8} {'ratio':>6} {'peak MB':>8}")
    for one in programs:
        peer = by_name[one.peer]
        print(f"{one.name:34}{one.seconds:7.2f} {peer.seconds / one.seconds:5.2f}x {one.size / 1e6:8.1f} "
              f"{one.size / peer.size:6.2f} {max(each.memory_mb for each in one.runs):8.0f}")
    return 0


if __name__ == "__main__":
    if not shutil.which("makedumpfile"):
        sys.exit("makedumpfile is not installed: tools/system-packages bench")
    sys.exit(main())

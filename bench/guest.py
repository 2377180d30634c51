"""A capture in a guest, measured: image, memory, time from the panic on; kdumpy beside makedumpfile.

usage: python -m bench.guest [--kernel 6.1] [--guest MIB:RESERVED …] [--full]

Both run in the same guest with the same capture kernel and write to the same kind of disk; makedumpfile's image is
busybox, the modules and makedumpfile. Memory is looked at by the guest itself ten times a second.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from kdumpy.image.capture import Built
from kdumpy.units import human_bytes
from kdumpy.vm import capturing, trial
from kdumpy.vm.capturing import OUT, config
from kdumpy.vm.kernels import Kernel

WATCH = b"""#!/bin/sh
# The least MemAvailable and the largest resident set of a process that is not the shell's, until told to stop.
(least=999999999; most=0
while [ ! -e /run/kdumpy/watched ]; do
    now=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
    [ "$now" -ge "$least" ] || least=$now
    now=$(cat /proc/[0-9]*/status 2>/dev/null | awk '/^VmHWM:/ { if ($2 > most) most = $2 } END { print most + 0 }')
    [ "$now" -le "$most" ] || most=$now
    echo "$least $most" >/run/kdumpy/watch
    sleep 0.1
done) >/dev/null 2>&1 &
"""
TOLD = b"""#!/bin/sh
touch /run/kdumpy/watched
read -r least most </run/kdumpy/watch
total=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
echo "WATCH $total $least $most"
"""
MAKEDUMPFILE = b"""#!/bin/sh
# What the ladder takes for Python: makedumpfile on the same disk.
mount -t ext4 "$(findfs LABEL=out)" /mnt
mkdir /mnt/laboratory-makedumpfile
makedumpfile --message-level 1 -l -d 31 /proc/vmcore /mnt/laboratory-makedumpfile/vmcore-incomplete || exit 3
mv /mnt/laboratory-makedumpfile/vmcore-incomplete /mnt/laboratory-makedumpfile/vmcore
sync
umount /mnt
echo "kdumpy: saved by makedumpfile"
"""


def images(watched: bool) -> dict[str, trial.Builder]:
    """Return what is compared: name → builder of its image."""
    hooks: dict[str, bytes | Path] = {}
    if watched:
        hooks = {"etc/kdumpy/pre.d/watch": WATCH, "etc/kdumpy/post.d/told": TOLD}

    def makedumpfile(kernel: Kernel, path: Path) -> Built:
        files = {**hooks, "bin/python-instead": MAKEDUMPFILE, "etc/kdumpy-capture.sh": SETTINGS}
        return capturing.build_image(kernel, config(), path, carried=False, files=files, programs=("makedumpfile",))

    return {"kdumpy zstd": trial.image(config(), files=hooks),
            "kdumpy lzo": trial.image(config(compress="lzo"), compression="lzo", files=hooks),
            "makedumpfile -l": makedumpfile}


SETTINGS = b"targets=disk:LABEL=out\nfinal_action=poweroff\nraw_copy=no\npython=/bin/python-instead\n"


def main(arguments: list[str] | None = None) -> int:
    """Print one line a capture."""
    parser = argparse.ArgumentParser(prog="python -m bench.guest", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="6.1")
    parser.add_argument("--guest", nargs="*", default=["640:256M", "640:192M"], metavar="MIB:RESERVED")
    options = parser.parse_args(arguments)
    print(f"{'guest':12} {'capture':16} {'image':>9} {'unpacked':>9} {'total':>6} {'used':>6} {'process':>8} "
          f"{'dump':>10} {'panic to saved':>15}")
    for guest in options.guest:
        mib, reserved = guest.split(":")
        for name in images(True):
            measure(options.kernel, int(mib), reserved, name)
    return 0


def measure(kernel: str, mib: int, reserved: str, name: str) -> None:
    """Take a dump twice, watched for its memory and alone for its time, and print the figures."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        watched = trial.crash(Path(first), images(True)[name], {OUT: mib + 128}, kernel=kernel, memory_mib=mib,
                              crashkernel=reserved)
        alone = trial.crash(Path(second), images(False)[name], {OUT: mib + 128}, kernel=kernel, memory_mib=mib,
                            crashkernel=reserved)
        found = re.search(r"WATCH (\d+) (\d+) (\d+)", watched.console)
        if found is None:
            sys.exit(f"{name}: the guest did not tell\n{watched.console[-2000:]}")
        total, least, most = (int(text) >> 10 for text in found.groups())
        size = alone.fetch(OUT, "vmcore", Path(second, "vmcore")).stat().st_size
    print(f"{mib}:{reserved:7} {name:16} {human_bytes(alone.image.bytes):>9} {human_bytes(alone.image.unpacked):>9} "
          f"{total:4} M {total - least:4} M {most:6} M {human_bytes(size):>10} {alone.seconds:13.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""A large guest's whole memory as an ELF vmcore: what the capture benchmarks filter and compress.

Its memory is a mix as servers have it: page cache of real files, anonymous memory, inodes and dentries,
memory that was used and freed, and memory that was never touched.
"""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kdumpy.errors import LaboratoryError
from kdumpy.vm import guest, kernels, toolchain
from kdumpy.vm.paths import laboratory_home, locked, room_for_a_guest
from kdumpy.vm.qemu import Disk, Hardware, Machine

VERSION = 1
"""Raised when the mix changes."""

MEMORY_MIB = 3328
FILES_MIB = 700
"""Files of this machine that the guest reads: libraries and documents under /usr."""
_FROM = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/share/doc", "/usr/share/perl",
         "/usr/lib/python3.11", "/usr/bin", "/usr/share/locale")

_TRIGGER = """
for file in /sys/block/vd*/serial; do
    read -r name <$file
    device=${file#/sys/block/}
    [ "$name" = files ] && mount -t ext4 "/dev/${device%/serial}" /mnt
done
find /mnt -type f -exec cat {} + >/dev/null
mount -t tmpfs -o size=80% tmpfs /run
find /mnt/usr/lib -type f -size +100k -exec cat {} + 2>/dev/null | head -c 500000000 >/run/deleted
cp -r /mnt/usr/share /run/ 2>/dev/null
rm /run/deleted
for part in 1 2 3; do
    sh -c 'held=$(find /mnt/usr/share/doc /mnt/usr/share/perl -type f -exec cat {} + 2>/dev/null |
        tr -d "\\000" | head -c 100000000); sleep 100000; echo "$held"' &
done
sleep 15
echo LAB mixed
"""


def vmcore(kernel: str = "6.1", say: Callable[[str], None] = lambda line: None) -> Path:
    """Return the ELF vmcore (3.3 GB) from the cache, or boot the guest and take it (about two minutes)."""
    found = kernels.get(kernel)
    path = laboratory_home() / "bench" / f"{found.release}-{MEMORY_MIB}M-v{VERSION}.elf"
    with locked("bench"):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                _make(found, Path(scratch), say)
                Path(scratch, "vmcore").rename(path)
    return path


def _make(kernel: kernels.Kernel, place: Path, say: Callable[[str], None]) -> None:
    initrd, data, files = (place / name for name in ("initrd", "data.img", "files.img"))
    guest.build_initramfs(kernel, [toolchain.build_driver(kernel)], initrd)
    recipe = f"sysctls=''\narm=''\nbare=''\nas_init=''\ntrigger() {{ {_TRIGGER}\n}}\n"
    image = place / "image"
    guest.make_disk(image, mib=1)
    guest.make_data_disk(data, {"recipe": recipe.encode(), "image": image}, mib=32)
    say("copying files for the guest's page cache…")
    _copy_files(place / "tree")
    guest.make_disk(files, FILES_MIB + 300, str(place / "tree"))
    shutil.rmtree(place / "tree")
    hardware = Hardware(kernel=kernel.image, initrd=initrd, memory_mib=MEMORY_MIB,
                        cmdline="console=ttyS0 crashkernel=192M panic=10",
                        disks=(Disk(data, "data"), Disk(files, "files")), extra=("-device", "vmcoreinfo"))
    say(f"booting {kernel.release} with {MEMORY_MIB} MiB…")
    with room_for_a_guest(), Machine(hardware, place / "console.log") as machine:
        machine.wait_for(r"LAB ready", 180, failures=("LAB failed", "Kernel panic"))
        say("filling its memory…")
        machine.wait_for(r"LAB mixed", 400, failures=("LAB failed", "Kernel panic"))
        say("writing its memory…")
        machine.qmp("dump-guest-memory", paging=False, protocol=f"file:{place / 'vmcore'}", format="elf")
    _headers_first(place / "vmcore")


def _headers_first(vmcore: Path) -> None:
    """Move the program headers to where makedumpfile looks for them whatever the ELF header says: right behind it."""
    elf = struct.Struct("<32sQQIHHHHHH")
    with vmcore.open("r+b") as file:
        start, at, _, flags, size, each, count, _, _, _ = elf.unpack(file.read(elf.size))
        file.seek(at)
        table = file.read(each * count)
        notes_at = int.from_bytes(table[8:16], "little")
        if elf.size + len(table) > notes_at:
            raise LaboratoryError("no room for the program headers", where=str(vmcore))
        file.seek(0)
        file.write(elf.pack(start, elf.size, 0, flags, size, each, count, 0, 0, 0) + table)


def _copy_files(tree: Path) -> None:
    """Copy whole files until there are FILES_MIB of them; links are left out."""
    left = FILES_MIB << 20
    for top in map(Path, _FROM):
        for source in sorted(top.rglob("*")) if top.is_dir() else ():
            if left <= 0:
                return
            if source.is_symlink() or not source.is_file() or source.stat().st_size > 64 << 20:
                continue
            target = tree / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            left -= source.stat().st_size


if __name__ == "__main__":
    print(vmcore(say=lambda line: print(line, file=sys.stderr, flush=True)))

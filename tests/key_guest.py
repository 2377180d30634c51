"""What gives a guest's kernel keys to use: dm-crypt, IPsec, TLS of a socket, WireGuard; and other things to hold.

`secret_guest` boots it. As there, a key is the MD5 sum of its name, so that it stands in no file.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdumpy.image.initramfs import Initramfs
from kdumpy.vm import guest

KERNELS = ("6.1", "newest")
NAMES = ("dmcrypt", "ipsec", "tls", "wireguard")
PROGRAMS = ("holdkey", "holdobjects")
_FOLDER = Path(__file__).parent / "guest_programs"
_MODULES = ("aesni-intel", "xts", "gcm", "ghash-generic", "ctr", "seqiv", "echainiv", "authenc", "dm-crypt", "tls",
            "wireguard", "xfrm_user", "esp4", "sha512_generic", "jitterentropy_rng", "drbg")


def key(name: str) -> bytes:
    """Return a key of the guest."""
    return hashlib.md5(f"{name}\n".encode()).hexdigest().encode()[:16 if name == "tls" else 32]


_COMMANDS = """
for name in dmcrypt ipsec tls wireguard; do
  key=$(echo $name | md5sum | cut -c1-32); hex=$(printf %s $key | hexdump -ve '1/1 "%02x"')
  case $name in
  dmcrypt) dd if=/dev/zero of=/tmp/disk bs=1024 count=1024; losetup /dev/loop3 /tmp/disk
    echo "0 2048 crypt aes-xts-plain64 $hex 0 /dev/loop3 0" | dmsetup create --noudevsync secret && echo LAB $name ;;
  ipsec) /opt/ip xfrm state add src 10.9.8.7 dst 10.9.8.6 proto esp spi 0x77 mode tunnel enc 'cbc(aes)' 0x$hex \
    auth 'hmac(sha256)' 0x$hex && echo LAB $name ;;
  wireguard) /opt/ip link add wg0 type wireguard; printf %s $key | holdkey wireguard ;;
  tls) printf %s $key | holdkey tls & ;;
  esac
done
holdobjects &
sleep 1; unset key hex
"""


def commands() -> str:
    """Return shell commands that give the keys to the guest's kernel."""
    sources = b"".join((_FOLDER / f"{name}.c").read_bytes() for name in PROGRAMS)
    return f": {hashlib.sha256(sources).hexdigest()[:8]}\n{_COMMANDS.strip()}"


@contextmanager
def equipped() -> Iterator[None]:
    """Guests that are made now have the programs and modules that the commands need."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        class Equipped(Initramfs):
            """The guest's image with programs that give the kernel keys."""

            def write(self, *arguments: Any, **options: Any) -> int:
                for name in PROGRAMS:
                    program = Path(directory, name)
                    if not program.exists():
                        subprocess.run(["cc", "-O2", "-o", program, _FOLDER / f"{name}.c"], check=True)
                    self.add_program(str(program), at=f"bin/{name}")
                for name, at in (("dmsetup", "bin/dmsetup"), ("ip", "opt/ip")):
                    self.add_program(name, at=at)
                return super().write(*arguments, **options)

        patch.setattr(guest, "Initramfs", Equipped)
        patch.setattr(guest, "OPTIONAL_MODULES", (*guest.OPTIONAL_MODULES, *_MODULES))
        yield

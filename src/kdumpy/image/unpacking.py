"""An initramfs as the kernel unpacks it: newc archives one after the other, packed or not.

Source: init/initramfs.c of the kernel, unpack_to_rootfs(): archives begin on boundaries of 4 bytes, zeros lie between
them, a packed part may hold several.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator

from kdumpy.errors import HostError
from kdumpy.image import cpio
from kdumpy.image.cpio import Entry

LARGEST = 2 << 30
"""Bytes that a part may unpack to."""


def entries(data: bytes) -> Iterator[Entry]:
    """Yield the files of an image.

    Raises:
        HostError: it is no initramfs, damaged, or packed in a way that is not known here (lz4, lzo).
    """
    at = 0
    while at < len(data):
        if not data[at]:
            at += 1
        elif data[at:at + 6] == cpio.MAGIC:
            at = yield from cpio.read(data, at)
        else:
            plain, rest = _unpacked(data[at:])
            yield from entries(plain)
            data, at = rest, 0


def _unpacked(data: bytes) -> tuple[bytes, bytes]:
    """Return what a packed part holds, and what follows it."""
    try:
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            import zstandard  # a dependency of the host side

            part = zstandard.ZstdDecompressor().decompressobj()
            plain = part.decompress(data)
            return plain, part.unused_data
        if data.startswith(b"\x1f\x8b"):
            packed = zlib.decompressobj(wbits=31)
            return packed.decompress(data, LARGEST), packed.unused_data
        if data.startswith(b"\xfd7zXZ"):
            xz = lzma.LZMADecompressor()
            return xz.decompress(data, LARGEST), xz.unused_data
        if data.startswith(b"BZh"):
            bzip = bz2.BZ2Decompressor()
            return bzip.decompress(data, LARGEST), bzip.unused_data
    except Exception as error:          # each library has an error of its own
        raise HostError("a part of the initramfs is damaged", why=str(error)) from error
    raise HostError("a part of the initramfs cannot be read", why=f"it begins with {data[:6].hex()}")

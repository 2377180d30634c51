"""Raw snappy decompression in plain Python, for hosts without a snappy library: slow, right, bounded.

Source: google/snappy format_description.txt.
"""

from __future__ import annotations


def stated_size(data: bytes) -> int:
    """Return the size in bytes that the stream says it decompresses to; ValueError when it is malformed."""
    return _preamble(data)[0]


def _preamble(data: bytes) -> tuple[int, int]:
    size = 0
    for at, byte in enumerate(data[:5]):
        size |= (byte & 0x7f) << 7 * at
        if byte < 0x80:
            return size, at + 1
    raise ValueError("its length is malformed")


def decompress_snappy(data: bytes, limit: int) -> bytes:
    """Return what a snappy stream holds, at most `limit` bytes; ValueError when it is malformed."""
    size, at = _preamble(data)
    if size > limit:
        raise ValueError(f"says it is {size} bytes")
    out = bytearray()
    end = len(data)
    while at < end and len(out) <= size:
        tag = data[at]
        at += 1
        kind, length = tag & 3, (tag >> 2) + 1
        if kind == 0:  # literals; 60 to 63 say how many bytes hold the length
            extra = max(tag >> 2, 59) - 59
            if extra:
                length = int.from_bytes(data[at:at + extra], "little") + 1
                at += extra
            out += data[at:at + length]
            at += length
            continue
        if kind == 1:
            length = (tag >> 2 & 7) + 4
            distance = (tag >> 5) << 8 | int.from_bytes(data[at:at + 1], "little")
            at += 1
        else:
            wide = 2 if kind == 2 else 4
            distance = int.from_bytes(data[at:at + wide], "little")
            at += wide
        start = len(out) - distance
        if distance == 0 or start < 0:
            raise ValueError("a copy starts before the page")
        pattern = bytes(out[start:start + length])
        out += pattern if distance >= length else (pattern * (length // distance + 1))[:length]
    if len(out) != size:
        raise ValueError(f"gave {len(out)} of {size} bytes")
    return bytes(out)

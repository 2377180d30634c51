"""LZO1X decompression in plain Python, for hosts without an LZO library: slow, right, bounded.

Source: Documentation/staging/lzo.rst of the kernel, which describes the stream.
"""

from __future__ import annotations

_FIRST_LITERALS = 17
"""A first byte above this starts the stream with (byte - 17) literals."""


def decompress_lzo(data: bytes, limit: int) -> bytes:
    """Return what an LZO1X stream holds, at most `limit` bytes; ValueError when it is malformed."""
    try:
        return _decompress(data, limit)
    except IndexError:
        raise ValueError("the stream ends early") from None


def _decompress(data: bytes, limit: int) -> bytes:
    out = bytearray()
    at = 0
    state = 0
    """Literals copied by the last instruction: 0 none, 1 to 3, or 4 for "four or more"."""
    if data[0] > _FIRST_LITERALS:
        count = data[0] - _FIRST_LITERALS
        out += data[1:1 + count]
        at = 1 + count
        state = min(count, 4)
    while True:
        code = data[at]
        at += 1
        if code < 16 and state == 0:  # a long run of literals
            count, at = _length(data, at, code, 15)
            count += 3
            if at + count > len(data):
                raise IndexError
            out += data[at:at + count]
            at += count
            state = 4
        else:
            if code < 16:  # a short match whose meaning hangs on the literals before it
                far = 2049 if state == 4 else 1
                length = 3 if state == 4 else 2
                distance = (data[at] << 2) + (code >> 2) + far
                trailing = code & 3
                at += 1
            elif code < 64:
                if code < 32:
                    length, at = _length(data, at, code & 7, 7)
                    base = 16384 + ((code & 8) << 11)
                else:
                    length, at = _length(data, at, code & 31, 31)
                    base = 1
                length += 2
                low = data[at] | data[at + 1] << 8
                at += 2
                distance = base + (low >> 2)
                trailing = low & 3
                if base == 16384 and distance == 16384:  # the end of the stream
                    return bytes(out)
            else:
                length = (code >> 5) + 1
                distance = (data[at] << 3) + (code >> 2 & 7) + 1
                trailing = code & 3
                at += 1
            _copy(out, distance, length)
            state = trailing
            out += data[at:at + state]
            at += state
        if len(out) > limit:
            raise ValueError(f"more than {limit} bytes")


def _length(data: bytes, at: int, value: int, full: int) -> tuple[int, int]:
    """Return a run length and the position behind it; `value` 0 means that zero bytes prolong it."""
    if value:
        return value, at
    value = full
    while data[at] == 0:
        value += 255
        at += 1
    return value + data[at], at + 1


def _copy(out: bytearray, distance: int, length: int) -> None:
    start = len(out) - distance
    if start < 0:
        raise ValueError("a match starts before the page")
    if distance >= length:
        out += out[start:start + length]
    else:  # the match overlaps what it makes: a repeated pattern
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]

"""makedumpfile -F: a dump as a stream of (offset, size, bytes) records, as sent through a pipe or ssh.

Shown as if the stream had been written out (`makedumpfile -R`), without writing it.
Source: makedumpfile.h, struct makedumpfile_header and makedumpfile_data_header (big endian on every machine).
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from typing import NamedTuple

from kdumpy.dumpfile.source import Source, beyond_end
from kdumpy.errors import DamagedDump, DumpFormatError

SIGNATURE = b"makedumpfile\0\0\0\0"
_HEADER = struct.Struct(">16sqq")
_RECORD = struct.Struct(">qq")
_HEADER_SIZE = 4096
"""Bytes; the header is padded to this."""
_TYPE, _VERSION = 1, 1
_END = -1
"""Offset and size of the record that ends the stream."""
HEADER = _HEADER.pack(SIGNATURE, _TYPE, _VERSION).ljust(_HEADER_SIZE, b"\0")
"""What a stream starts with: struct makedumpfile_header (signature 16 bytes, type, version), padded."""
END_RECORD = _RECORD.pack(_END, _END)
"""What a stream ends with."""
_MOST_RECORDS = 1 << 22
_SMALLEST_MEAN = 64
"""Bytes; a stream whose records are smaller than this on average is not believed."""


class Piece(NamedTuple):
    """Bytes of the dump that are together in the stream."""

    start: int
    """Offset in the dump."""
    size: int
    offset: int
    """Offset in the stream."""


def recognised(start: bytes) -> bool:
    """Tell whether a file that starts so is a flattened stream."""
    return start[:16] == SIGNATURE


def record(offset: int, size: int) -> bytes:
    """Return what precedes `size` bytes that belong to `offset`: struct makedumpfile_data_header."""
    return _RECORD.pack(offset, size)


class FlattenedSource:
    """The dump inside of a flattened stream. Places that no record wrote are zero, as in a sparse file."""

    def __init__(self, stream: Source) -> None:
        self.stream = stream
        self.name = stream.name
        self.file_size = stream.size
        self.finished = False
        """The record that ends the stream was found."""
        self.damage = ""
        """Why the stream ends early, or empty."""
        self._pieces = _without_overlaps(self._read_records())
        self._starts = [piece.start for piece in self._pieces]
        last = self._pieces[-1]
        self.size = last.start + last.size

    def _read_records(self) -> list[Piece]:
        stream = self.stream
        if stream.size < _HEADER_SIZE:
            raise DamagedDump("the flattened stream is cut short", where=stream.name,
                              why=f"the file has {stream.size} bytes")
        _signature, kind, version = _HEADER.unpack(stream.read(0, _HEADER.size))
        if (kind, version) != (_TYPE, _VERSION):
            raise DumpFormatError("this kind of flattened stream is not supported", where=stream.name,
                                  why=f"type {kind}, version {version}; 1 and 1 are known")
        pieces: list[Piece] = []
        at = _HEADER_SIZE
        while at + _RECORD.size <= stream.size:
            start, size = _RECORD.unpack(stream.read(at, _RECORD.size))
            if start == size == _END:
                self.finished = True
                break
            if start < 0 or size <= 0 or start >= 1 << 62:
                self.damage = f"a record at {at:#x} says offset {start}, {size} bytes"
                break
            at += _RECORD.size
            held = min(size, stream.size - at)
            if held:
                pieces.append(Piece(start, held, at))
            if held < size:
                self.damage = f"the last record has {held} of {size} bytes"
                break
            at += size
            if len(pieces) > _MOST_RECORDS or len(pieces) > 65536 + at // _SMALLEST_MEAN:
                raise DamagedDump("the flattened stream has too many records", where=f"{stream.name} at {at:#x}",
                                  why=f"{len(pieces)} records so far")
        if not pieces:
            raise DamagedDump("the flattened stream holds nothing", where=stream.name, why=self.damage)
        if not self.finished and not self.damage:
            self.damage = "the record that ends the stream is missing"
        return pieces

    @property
    def pieces(self) -> list[Piece]:
        """What was written, by its place in the dump; between two pieces nothing was."""
        return self._pieces

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes of the dump at `offset`."""
        index = bisect_right(self._starts, offset) - 1
        if index >= 0 and size >= 0:  # nearly always within one record
            piece = self._pieces[index]
            if offset + size <= piece.start + piece.size:
                return self.stream.read(piece.offset + offset - piece.start, size)
        # Holes are zero, but only as many as the stream could have: nothing is allocated on a record's word.
        if offset < 0 or size < 0 or offset + size > self.size or size > self.file_size:
            raise beyond_end(self, offset, size)
        data = bytearray(size)
        end = offset + size
        for piece in self._pieces[max(index, 0):]:
            if piece.start >= end:
                break
            low, high = max(piece.start, offset), min(piece.start + piece.size, end)
            if low < high:
                data[low - offset:high - offset] = self.stream.read(piece.offset + low - piece.start, high - low)
        return bytes(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`."""
        target[:] = self.read(offset, len(target))

    def close(self) -> None:
        """Close the stream."""
        self.stream.close()


def _without_overlaps(pieces: list[Piece]) -> list[Piece]:
    """Return the pieces by their place in the dump; where records overlap, the later one counts."""
    ordered = sorted(pieces)
    if all(one.start + one.size <= two.start for one, two in itertools.pairwise(ordered)):
        return _joined(ordered)
    # makedumpfile writes a few headers again at the end. The newest record at each stretch wins:
    # sweep over the boundaries with a heap of the records that are open, newest on top.
    import heapq
    edges = sorted({edge for piece in pieces for edge in (piece.start, piece.start + piece.size)})
    result: list[Piece] = []
    opened: list[tuple[int, Piece]] = []
    following = 0
    for low, high in itertools.pairwise(edges):
        while following < len(ordered) and ordered[following].start <= low:
            # A later record has a larger offset in the stream.
            heapq.heappush(opened, (-ordered[following].offset, ordered[following]))
            following += 1
        while opened and opened[0][1].start + opened[0][1].size <= low:
            heapq.heappop(opened)
        if opened:
            newest = opened[0][1]
            result.append(Piece(low, high - low, newest.offset + low - newest.start))
    return _joined(result)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Join pieces that are neighbours both in the dump and in the stream."""
    result = pieces[:1]
    for piece in pieces[1:]:
        last = result[-1]
        if (last.start + last.size, last.offset + last.size) == (piece.start, piece.offset):
            result[-1] = Piece(last.start, last.size + piece.size, last.offset)
        else:
            result.append(piece)
    return result

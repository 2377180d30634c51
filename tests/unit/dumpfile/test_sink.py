"""Sinks: every byte where it belongs, and a full disk told as one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpy.dumpfile.flattened import FlattenedSource
from kdumpy.dumpfile.sink import FileSink, StreamSink, clear, flat_bytes, is_one_way
from kdumpy.dumpfile.source import BytesSource
from kdumpy.errors import HostError, NoSpace


def test_a_file_is_the_owner_s_alone_and_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(b"old and long")
    path.unlink()
    with FileSink(path) as sink:
        sink.write_at(4, b"abc")
        sink.write_at(0, np.arange(2, dtype=np.uint16))
        sink.sync()
    assert path.read_bytes() == b"\0\0\1\0abc"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with FileSink(path):
        assert path.stat().st_size == 0
    sink.close()  # a second time


def test_forked_workers_write_too(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    with FileSink(path) as sink:
        children = []
        for number in range(4):
            child = os.fork()
            if not child:
                sink.write_at(number * 3, bytes([65 + number]) * 3)
                os._exit(0)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert path.read_bytes() == b"AAABBBCCCDDD"


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EFBIG, NoSpace),
                                            (errno.EIO, HostError)])
def test_a_full_disk_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int,
                                   kind: type[HostError]) -> None:
    sink = FileSink(tmp_path / "vmcore")

    def fail(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(HostError, match=os.strerror(code)) as caught:
        sink.write_at(4096, b"x")
    assert type(caught.value) is kind
    assert "0x1000" in caught.value.where
    monkeypatch.undo()
    sink.close()


def test_a_disk_that_is_full_in_truth() -> None:
    with pytest.raises(NoSpace, match="No space left"), FileSink("/dev/full") as sink:
        sink.write_at(0, bytes(8192))


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with FileSink(tmp_path / "vmcore") as sink:
        sink.write_at(1, b"0123456789")
    assert (tmp_path / "vmcore").read_bytes() == b"\x000123456789"


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(HostError, match="cannot write"):
        FileSink("/nowhere/at/all")


@given(st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=300)), min_size=1, max_size=12))
def test_a_stream_is_what_a_file_would_be(pieces: list[tuple[int, bytes]]) -> None:
    stream, expected = bytearray(), bytearray()
    sink = StreamSink(stream.extend)
    for offset, data in pieces:
        sink.write_at(offset, data)
        expected.extend(bytes(max(offset + len(data) - len(expected), 0)))
        expected[offset:offset + len(data)] = data
    sink.write_at(0, b"")  # no record: it would end the stream for a reader
    sink.close()
    source = FlattenedSource(BytesSource(bytes(stream)))
    assert source.finished
    assert not source.damage
    # Holes read as zero; what no reader asks for (more than the stream has) may be refused.
    for offset, data in pieces:
        assert source.read(offset, len(data)) == expected[offset:offset + len(data)]
    assert source.size == len(expected)


def test_a_broken_pipe_is_told(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe, pytest.raises(HostError, match="Broken pipe"):
        StreamSink(pipe.write, "ssh://there").write_at(0, b"x")


def test_clearing_is_for_devices_alone() -> None:
    class Recorder:
        name = "recorder"
        keeps_old_bytes = False

        def __init__(self) -> None:
            self.written: list[tuple[int, int]] = []

        def write_at(self, offset: int, data: object) -> None:
            assert isinstance(data, bytes)
            assert not any(data)
            self.written.append((offset, len(data)))

        def sync(self) -> None: ...

        def close(self) -> None: ...

    sink = Recorder()
    clear(sink, 10, 3 << 20)
    assert sink.written == []
    sink.keeps_old_bytes = True
    clear(sink, 10, (2 << 20) + 5)
    clear(sink, 10, 0)
    assert sink.written == [(10, 1 << 20), ((1 << 20) + 10, 1 << 20), ((2 << 20) + 10, 5)]
    assert not is_one_way(sink)
    assert is_one_way(StreamSink(lambda data: None))


def test_any_contiguous_buffer_is_bytes() -> None:
    array = np.arange(6, dtype=np.uint32).reshape(2, 3)
    assert bytes(flat_bytes(array)) == array.tobytes()
    assert bytes(flat_bytes(bytearray(b"ab"))) == b"ab"
    assert len(flat_bytes(memoryview(bytes(24)).cast("I"))) == 24

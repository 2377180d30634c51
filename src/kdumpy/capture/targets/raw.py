"""A bare partition or disk: `raw:/dev/vdb`, `raw:PARTLABEL=crash`.

The dump lies at the device's start, as in a file: open_dump, crash and drgn read it from the device, and
`dd if=/dev/vdb of=vmcore bs=1M count=SIZE iflag=count_bytes` copies it out. The small files lie in the last megabytes;
the last 4096 bytes are a table in plain text of what lies where: `tail -c 4096 /dev/vdb`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.capture.targets import devices, rawtable
from kdumpy.capture.targets.base import incomplete
from kdumpy.capture.targets.files import told, write_all
from kdumpy.capture.targets.mounting import mounted_at
from kdumpy.capture.targets.rawtable import Entry, Layout, Table
from kdumpy.capture.targets.superblock import LOOKED_AT
from kdumpy.errors import HostError, NoSpace, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig
    from kdumpy.dumpfile.sink import FileSink

PROGRAMS: tuple[str, ...] = ()

_DUMPS = (b"\x7fELF", b"KDUMP   ", b"makedumpfile\0\0\0\0", b"age-encryption.org/")
"""How a dump that another program or an earlier capture left at the start begins."""
_TEXTS = (".txt", ".log")
"""Files that may be cut at their beginning when they are too long: their end tells most."""


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL names no device."""
    device, directory = devices.split(url.removeprefix("raw:"))
    if directory or device.startswith(("UUID=", "LABEL=")):
        raise UsageError(f"not a bare device: {url!r}", mend="write raw:/dev/…, raw:PARTUUID=… or raw:PARTLABEL=…; "
                         "a directory of a file system is disk:…")


def make(url: str, config: CaptureConfig, directory: str) -> RawTarget:
    """Return the target."""
    return RawTarget(url, directory, config.device_wait_s, overwrite=config.raw_overwrite)


def refuse_if_used(node: Path, *, overwrite: bool = False) -> None:
    """Raise HostError when a device must not be written to: it is in use, or holds what is no dump of ours.

    Also called when a host is armed: better to refuse then than in the capture kernel.
    """
    places = mounted_at(node)
    if places:
        raise HostError("the raw target is mounted", where=str(node), why=f"on {', '.join(places)}")
    try:
        # The kernel refuses O_EXCL for what is mounted, swap, or part of an array or a volume group.
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        raise HostError("the raw target is in use", where=str(node), why=error.strerror or str(error)) from error
    if overwrite or _is_ours(node):
        return
    found = devices.content(node)
    mend = "name another device, or set raw_overwrite = true to destroy what is on it"
    if found.kind:
        raise HostError(f"the raw target holds {found.kind}", where=str(node), mend=mend)
    if found.blank:
        return
    with node.open("rb") as file:
        start = file.read(32)
    if not start.startswith(_DUMPS):
        raise HostError("the raw target holds something", where=str(node),
                        why=f"it starts with {start[:8].hex(' ')}, which is no dump", mend=mend)


def _is_ours(node: Path) -> bool:
    """Tell whether a device is as a capture left it.

    The table alone does not tell: making a file system leaves a device's last bytes as they were. And an encrypted
    dump is made of chance: sooner or later one looks like a file system.
    """
    table = rawtable.read(node)
    if table is None or not table.start:
        return False
    return _start(node).hex() == table.start


def _start(node: Path) -> bytes:
    with told("cannot read the device", node), node.open("rb") as file:
        return file.read(rawtable.START_BYTES)


class RawTarget:
    """A device with one crash on it."""

    seekable = True

    def __init__(self, url: str, directory: str, wait_s: float, *, overwrite: bool) -> None:
        self.url = url
        self._device = devices.split(url.removeprefix("raw:"))[0]
        self._own = directory
        self._wait_s = wait_s
        self._overwrite = overwrite
        self._node = Path()
        self._layout = Layout(0)
        self._table = Table(directory)
        self._files: dict[str, bytes | bytearray] = {}
        self._sink: FileSink | _DeviceStream | None = None

    def prepare(self) -> None:
        """Wait for the device, see that it may be written to, and take over what an earlier attempt left."""
        node, rest = devices.wait(self._device, self._wait_s)
        if rest:
            raise HostError("a raw target has no directories", where=self.url, why=f"{rest} follows the device")
        refuse_if_used(node, overwrite=self._overwrite)
        with told("cannot ask for the device's size", node), node.open("rb") as file:
            self._layout = Layout(file.seek(0, os.SEEK_END))
        if self._layout.dump_limit <= 0:
            raise HostError("the raw target is too small", where=str(node), why=f"{self._layout.size} bytes")
        self._node = node
        if self._overwrite and not _is_ours(node):
            self._wipe_start()  # the next crash must find what is ours, and no remains of a file system
        found = rawtable.read(node)
        if found is not None and found.directory == self._own:
            self._table = found
            self._files = {entry.name: rawtable.contents(node, entry) for entry in found.entries if not entry.is_dump}

    def free_bytes(self) -> int | None:
        """Return the room for a dump: whatever lay there before is overwritten."""
        return self._layout.dump_limit

    def open(self, name: str) -> FileSink:
        """Begin the dump at the device's start."""
        from kdumpy.capture.targets.rawsink import RawSink

        self._begin()
        self._sink = sink = RawSink(self._node, self._layout.dump_limit)
        return sink

    def stream(self, name: str) -> _DeviceStream:
        """Begin a stream at the device's start."""
        self._begin()
        self._sink = stream = _DeviceStream(self._node, self._layout.dump_limit)
        return stream

    def _begin(self) -> None:
        # From here on the table tells of no dump, and the start looks like none, until there is one.
        self._table.forget_dump()
        self._write_table()
        self._wipe_start()

    def _wipe_start(self) -> None:
        with told("cannot write", self._node):
            _write(self._node, 0, bytes(min(LOOKED_AT, self._layout.dump_limit)))

    def keep(self, name: str, size: int | None = None) -> str:
        """Write into the table that the dump is there."""
        self._sink = None
        self._table.set_dump(Entry(name, 0, size if size is not None else self._layout.dump_limit),
                             _start(self._node))
        self._write_table()
        return name

    def abandon(self, name: str, size: int | None = None) -> str:
        """Write into the table that a part of the dump is there."""
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.sync()
            finally:
                sink.close()
        if not size:
            return ""
        self._table.set_dump(Entry(incomplete(name), 0, size), _start(self._node))
        self._write_table()
        return self.place(incomplete(name))

    def discard(self, name: str) -> None:
        """Forget the dump."""
        self._begin()

    def digest(self, name: str) -> str | None:
        """Read the dump back and sum it."""
        import hashlib

        entry = next(entry for entry in self._table.entries if entry.is_dump)
        total = hashlib.sha256()
        with told("cannot read the dump back", self._node), self._node.open("rb") as file:
            left = entry.size
            while left and (piece := file.read(min(left, 1 << 20))):
                total.update(piece)
                left -= len(piece)
        return total.hexdigest()

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Write all small files anew, into the half that is not in use, then the table that points there."""
        self._files[name] = data
        room = self._layout.half_bytes - sum(len(other) for key, other in self._files.items() if key != name)
        if len(data) > room:
            if room <= 0 or not name.endswith(_TEXTS):
                del self._files[name]
                raise NoSpace("a small file is too large for the device", where=self.place(name),
                              why=f"{len(data)} bytes, there is room for {max(room, 0)}")
            mark = b"(the beginning was cut off: no room)\n"
            self._files[name] = mark + data[len(data) - room + len(mark):]
        start = self._layout.other_half(self._table)
        entries, at = [], start
        for key, contents in self._files.items():
            entries.append(Entry(key, at, len(contents)))
            at += len(contents)
        with told("cannot write", self._node):
            _write(self._node, start, b"".join(self._files.values()))
        self._table.set_files(entries)
        self._write_table()

    def _write_table(self) -> None:
        with told("cannot write", self._node):
            _write(self._node, self._layout.table_at, self._table.as_bytes())

    def place(self, name: str) -> str:
        """Return the device and the name in its table."""
        return f"{self._device}: {name}"

    def close(self) -> None:
        """Close what is open."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close()


class _DeviceStream:
    """A stream from the device's start."""

    def __init__(self, node: Path, limit: int) -> None:
        self._node, self._left = node, limit
        with told("cannot open", node):
            self._descriptor = os.open(node, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it, up to the small files' place."""
        if len(data) > self._left:
            raise NoSpace("the device is full", where=str(self._node))
        with told("cannot write", self._node):
            write_all(self._descriptor, data)
        self._left -= len(data)

    def finish(self) -> None:
        """Sync and close."""
        self.sync()
        self.close()

    def abort(self) -> None:
        """Close."""
        self.close()

    def sync(self) -> None:
        """Have the device hold it."""
        if self._descriptor >= 0:
            with told("cannot write", self._node):
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Close; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write(node: Path, offset: int, data: bytes) -> None:
    descriptor = os.open(node, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

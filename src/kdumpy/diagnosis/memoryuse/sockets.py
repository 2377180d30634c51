"""The sockets that processes have open: their queues and their ends.

Found in the tables of files of all processes, a few reads of memory each: there can be many. What nobody has open
(connections that wait to be accepted, or are being closed) is not among them.

Sources: include/net/sock.h, include/linux/fdtable.h, net/socket.c, include/uapi/linux/in.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import drgn

from kdumpy.kernel import Task

_MOST_FILES = 65_536
"""Of one process."""
_MOST_OF_ALL = 1 << 22
"""Of all together."""
_MEMBERS = {"family": "__sk_common.skc_family", "state": "__sk_common.skc_state", "port": "__sk_common.skc_num",
            "peer_port": "__sk_common.skc_dport", "protocol": "sk_protocol", "pending": "sk_ack_backlog",
            "most_pending": "sk_max_ack_backlog", "received": "sk_backlog.rmem_alloc", "room": "sk_rcvbuf"}
_INET, _INET6 = 2, 10
_PROTOCOLS = {6: "TCP", 17: "UDP"}
LISTEN = 10
"""TCP_LISTEN, include/net/tcp_states.h."""


@dataclass(frozen=True)
class Socket:
    """A socket of TCP or UDP."""

    address: int
    """Of the struct sock."""
    user: str
    """The first process that has it open: `nginx (pid 7)`."""
    protocol: str
    """TCP or UDP."""
    state: int
    """TCP_LISTEN and so on."""
    ends: str
    """`127.0.0.1:80`, and of a connection where it leads to."""
    pending: int
    """Connections that nobody has accepted yet."""
    most_pending: int
    """How many of them there may be."""
    received: int
    """Bytes of memory of what was received and not read yet."""
    room: int
    """How many of them there may be."""


def sockets(prog: drgn.Program, tasks: Iterable[Task]) -> Iterator[Socket]:
    """Yield the sockets of TCP and UDP that tasks have open, each once.

    Raises:
        LookupError: no type tells where sockets lie.
    """
    reader = _Reader(prog)
    operations = prog.symbol("socket_file_ops").address
    made, to_sock = prog.type("struct file"), drgn.offsetof(prog.type("struct socket"), "sk")
    at_operations, at_private = (drgn.offsetof(made, name) for name in ("f_op", "private_data"))
    first, size = min(at_operations, at_private), abs(at_operations - at_private) + 8
    seen: set[int] = set()
    for task, file in islice(_files(prog, tasks), _MOST_OF_ALL):
        if file in seen:
            continue
        seen.add(file)
        try:
            data = prog.read(file + first, size)
            if int.from_bytes(data[at_operations - first:][:8], "little") != operations:
                continue
            socket = int.from_bytes(data[at_private - first:][:8], "little")
            sock = prog.read_u64(socket + to_sock)
            found = reader.read(sock, task) if sock else None
        except drgn.FaultError:
            continue
        if found is not None:
            yield found


def _files(prog: drgn.Program, tasks: Iterable[Task]) -> Iterator[tuple[Task, int]]:
    """Yield (task, address of a struct file) of the open files of every process.

    A table of few files lies within the struct files_struct itself, and is read with it.
    """
    to_files = drgn.offsetof(prog.type("struct task_struct"), "files")
    whole, table = prog.type("struct files_struct"), prog.type("struct fdtable")
    size, to_table = drgn.sizeof(whole), drgn.offsetof(whole, "fdt")
    own_table, own_array = drgn.offsetof(whole, "fdtab"), drgn.offsetof(whole, "fd_array")
    to_array, to_count = drgn.offsetof(table, "fd"), drgn.offsetof(table, "max_fds")
    seen: set[int] = set()
    for task in tasks:
        try:
            files = prog.read_u64(task.address + to_files)
            if not files or files in seen:          # threads share them
                continue
            seen.add(files)
            data = prog.read(files, size)
            place = int.from_bytes(data[to_table:to_table + 8], "little")
            begin = data[own_table:] if place == files + own_table else prog.read(place, drgn.sizeof(table))
            array = int.from_bytes(begin[to_array:to_array + 8], "little")
            count = min(int.from_bytes(begin[to_count:to_count + 4], "little"), _MOST_FILES)
            held = data[own_array:] if array == files + own_array else prog.read(array, 8 * count)
        except drgn.FaultError:
            continue
        count = min(count, len(held) // 8)
        yield from ((task, file) for file in struct.unpack_from(f"<{count}Q", held) if file)


class _Reader:
    """Reads struct sock at one go."""

    def __init__(self, prog: drgn.Program) -> None:
        self.prog = prog
        made = prog.type("struct sock")
        self._members = {name: (drgn.offsetof(made, path), drgn.sizeof(self._type(made, path)))
                         for name, path in _MEMBERS.items()}
        self._here, self._there = (drgn.offsetof(made, f"__sk_common.{name}")
                                   for name in ("skc_rcv_saddr", "skc_daddr"))
        self._here6, self._there6 = (drgn.offsetof(made, f"__sk_common.{name}")
                                     for name in ("skc_v6_rcv_saddr", "skc_v6_daddr"))
        self._size = max(offset + size for offset, size in self._members.values())

    @staticmethod
    def _type(made: drgn.Type, path: str) -> drgn.Type:
        for name in path.split("."):
            made = made.member(name).type
            while made.kind == drgn.TypeKind.TYPEDEF:
                made = made.type
        return made

    def read(self, sock: int, task: Task) -> Socket | None:
        """Return a socket; None where it is of another protocol."""
        data = self.prog.read(sock, self._size)
        value = {name: int.from_bytes(data[offset:offset + size], "little")
                 for name, (offset, size) in self._members.items()}
        protocol = _PROTOCOLS.get(value["protocol"])
        if protocol is None or value["family"] not in (_INET, _INET6):
            return None
        here, there = (self._address(data, value["family"], at, at6)
                       for at, at6 in ((self._here, self._here6), (self._there, self._there6)))
        ends = f"{here}:{value['port']}"
        peer = int.from_bytes(struct.pack("<H", value["peer_port"]), "big")
        if peer:
            ends += f" → {there}:{peer}"
        return Socket(sock, f"{task.comm} (pid {task.pid})", protocol, value["state"], ends, value["pending"],
                      value["most_pending"], value["received"], value["room"])

    @staticmethod
    def _address(data: bytes, family: int, at: int, at6: int) -> str:
        if family == _INET:
            return str(ipaddress.IPv4Address(data[at:at + 4]))
        address = ipaddress.IPv6Address(data[at6:at6 + 16])
        return str(address.ipv4_mapped or f"[{address}]")

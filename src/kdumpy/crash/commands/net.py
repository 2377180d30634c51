"""`net`: network devices, and the sockets of a task."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.fs import for_each_file
from drgn.helpers.linux.net import SOCKET_I, for_each_netdev, netdev_ipv4_addrs, netdev_ipv6_addrs, netdev_name
from drgn.helpers.linux.sched import task_cpu

from kdumpy.crash import neighbours
from kdumpy.crash.command import Arg, Command, Options, columns
from kdumpy.crash.commands.bt import header
from kdumpy.crash.layout import Layout
from kdumpy.crash.session import Session
from kdumpy.crash.unread import Unread
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import NotInDump, UsageError

_MOST = 1 << 20
_SOCKET_MODE = 0o140000
_FAMILIES = {int(family): family.name.removeprefix("AF_") for family in socket.AddressFamily} | {
    1: "UNIX", 2: "INET", 10: "INET6", 16: "NETLINK", 17: "PACKET", 38: "ALG", 40: "VSOCK", 44: "XDP"}
_TYPES = {1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"}
"""Source: include/linux/net.h, enum sock_type."""
_INET, _INET6 = 2, 10


@dataclass(frozen=True)
class DeviceRow:
    """A network device."""

    device: int
    """Address of its net_device."""
    name: str
    addresses: tuple[str, ...]
    problem: str
    """Why its addresses cannot be read; empty when they can."""


@dataclass(frozen=True)
class SocketRow:
    """An open socket."""

    fd: int
    socket: int
    """Address of its struct socket."""
    sock: int
    """Address of its struct sock."""
    family: str
    type: str
    source: str
    """address-port, of INET and INET6."""
    destination: str


@dataclass(frozen=True)
class SocketsRow:
    """A task and its sockets."""

    pid: int
    task: int
    cpu: int
    command: str
    sockets: tuple[SocketRow, ...]
    problem: str


class Net(Command[Any]):
    """Show network devices with their addresses; with -s, the sockets of a task.

    Example:
        crash> net
           NET_DEVICE     NAME    IP ADDRESS(ES)
        ff390e1a81a00000  lo      127.0.0.1
    """

    names = ("net",)
    example = "net"
    row = DeviceRow
    args = (
        Arg("tasks", nargs="*", metavar="PID|TASK", help="with -s, -S: whose sockets; with -n: whose namespace"),
        Arg("-s", dest="sockets", action="store_true", help="the open sockets of a task"),
        Arg("-S", dest="structures", action="store_true", help="the same with their struct socket and struct sock"),
        Arg("-R", dest="reference", metavar="FD|ADDRESS", help="with -s, -S: only this socket, sock or descriptor"),
        Arg("-n", dest="namespace", action="store_true", help="the devices of a task's network namespace"),
        Arg("-N", dest="number", metavar="NUMBER", help="an IPv4 address as the kernel keeps it, in dots"),
        Arg("-x", dest="radix", action="store_const", const=16, help="integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="integers in decimal"),
        Arg("-a", dest="neighbours", action="store_true", help="the neighbours: ARP's table, and that of IPv6"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield devices, neighbours, or a row of sockets a task."""
        if options.number:
            yield DeviceRow(0, "", (dotted(options.number),), "")
        elif options.neighbours:
            yield from neighbours.neighbour_rows(session)
        elif options.sockets or options.structures:
            for task in session.tasks_of(options.tasks):
                row = _sockets(task, options.reference)
                if row.sockets or not options.reference:
                    yield row
        else:
            net = session.prog["init_net"].address_of_()
            if options.namespace or options.tasks:
                task = session.tasks_of(options.tasks)[0]
                if not task.nsproxy:
                    raise NotInDump("this task has left its namespaces", why="it exits")
                net = task.nsproxy.net_ns.read_()
            unread = Unread("network devices")
            yield from unread.rows(for_each_netdev(net), _device)
            unread.tell()

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay the answer out as crash does."""
        if options.number:
            yield from (row.addresses[0] for row in rows)
        elif options.neighbours:
            yield from neighbours.neighbour_lines(rows)
        elif options.sockets or options.structures:
            for number, row in enumerate(rows):
                if number:
                    yield ""
                yield from _render_sockets(row, session, options)
        else:
            yield from columns(("   NET_DEVICE   ", "NAME", "IP ADDRESS(ES)"),
                               ((f"{row.device:016x}", row.name, ", ".join(row.addresses) or row.problem)
                                for row in rows), "<<<")


def dotted(text: str) -> str:
    """Return an IPv4 address that the kernel keeps as a number of this machine's byte order, in dots.

    Raises:
        UsageError: it is none.
    """
    try:
        number = int(text, 0)
    except ValueError:
        try:
            number = int(text, 16)
        except ValueError:
            raise UsageError(f"{text!r} is no number") from None
    if not 0 <= number < 1 << 32:
        raise UsageError(f"{text!r} is no IPv4 address")
    return str(ipaddress.IPv4Address(number.to_bytes(4, "little")))


def _device(device: drgn.Object) -> DeviceRow:
    name, addresses, problem = "?", list[str](), ""
    try:
        name = netdev_name(device).decode("utf-8", "backslashreplace")
        addresses += [str(address) for address in netdev_ipv4_addrs(device)]
        addresses += [str(address) for address in netdev_ipv6_addrs(device)]
    except READ_ERRORS as error:
        problem = f"({str(error).splitlines()[0]})"
    return DeviceRow(device.value_(), name, tuple(addresses), problem)


def _sockets(task: drgn.Object, reference: str | None) -> SocketsRow:
    found: list[SocketRow] = []
    problem = ""
    try:
        if task.files:
            for fd, file in for_each_file(task):
                if fd > _MOST:
                    problem = f"cut after {_MOST} files"
                    break
                if not file:        # a number that was taken for a file that is not open yet: accept() waits
                    continue
                inode = file.f_inode
                if inode and inode.i_mode.value_() & 0o170000 == _SOCKET_MODE:
                    row = _socket(fd, SOCKET_I(inode))
                    if reference is None or reference in (str(fd), f"{row.socket:x}", f"{row.sock:x}"):
                        found.append(row)
    except READ_ERRORS as error:
        problem = f"not all can be read: {error}"
    return SocketsRow(task.pid.value_(), task.value_(), task_cpu(task),
                      task.comm.string_().decode("utf-8", "backslashreplace"), tuple(found), problem)


def _socket(fd: int, value: drgn.Object) -> SocketRow:
    sk = value.sk.read_()
    if not sk:
        return SocketRow(fd, value.value_(), 0, "", _TYPES.get(value.type.value_(), "?"), "", "")
    family = sk.__sk_common.skc_family.value_()
    kind = value.type.value_()
    source = destination = ""
    if family in (_INET, _INET6):
        source, destination = _ends(sk, family)
    return SocketRow(fd, value.value_(), sk.value_(), _FAMILIES.get(family, str(family)), _TYPES.get(kind, str(kind)),
                     source, destination)


def _ends(sk: drgn.Object, family: int) -> tuple[str, str]:
    """Return both ends as address-port. Source: include/net/inet_sock.h; ports and addresses in network order."""
    common = sk.__sk_common
    inet = drgn.cast("struct inet_sock *", sk)
    sport = int.from_bytes(inet.inet_sport.value_().to_bytes(2, "little"), "big")
    dport = int.from_bytes(common.skc_dport.value_().to_bytes(2, "little"), "big")
    if family == _INET:
        # A listening socket's own address is the one it received on; a bound one's is inet_saddr.
        own = inet.inet_saddr.value_() or common.skc_rcv_saddr.value_()
        ends = [str(ipaddress.IPv4Address(number.to_bytes(4, "little")))
                for number in (own, common.skc_daddr.value_())]
    else:
        ends = [str(ipaddress.IPv6Address(address.to_bytes_()))
                for address in (common.skc_v6_rcv_saddr.read_(), common.skc_v6_daddr.read_())]
    return f"{ends[0]}-{sport}", f"{ends[1]}-{dport}"


def _render_sockets(row: SocketsRow, session: Session, options: Options) -> Iterator[str]:
    yield header(row.pid, row.task, row.cpu, row.command)
    if not row.sockets:
        yield "No open sockets."
    elif not options.structures:
        yield from columns(("FD", "     SOCKET", "      SOCK", "FAMILY:TYPE", "SOURCE-PORT", "DESTINATION-PORT"),
                           ((f"{entry.fd:>2}", f"{entry.socket:016x}", f"{entry.sock:016x}",
                             f"{entry.family}:{entry.type}", entry.source, entry.destination)
                            for entry in row.sockets), "><<<<<")
    else:
        layout = Layout(session, options.radix)
        for entry in row.sockets:
            yield from columns(("FD", "     SOCKET", "      SOCK"),
                               [(f"{entry.fd:>2}", f"{entry.socket:016x}", f"{entry.sock:016x}")], "><<")
            for name, address in (("struct socket", entry.socket), ("struct sock", entry.sock)):
                if address:
                    yield f"{name} {layout.value(drgn.Object(session.prog, name, address=address))}"
    if row.problem:
        yield f"({row.problem})"


COMMAND = Net()

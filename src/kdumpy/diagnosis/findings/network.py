"""Checks of the network: sockets that nobody reads, calls of NFS that are not answered.

Sources: include/net/sock.h, include/linux/sunrpc/clnt.h, sched.h, xprt.h, net/sunrpc/netns.h.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from itertools import islice

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.net import for_each_net, for_each_netdev, netdev_ipv4_addrs

from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.findings.base import CRITICAL, INFO, WARNING, Check, Found, Machine, text, with_symbol
from kdumpy.diagnosis.memoryuse.sockets import LISTEN, Socket
from kdumpy.units import human_bytes, human_seconds

_FULL = 0.9
"""Of its room: a queue that is this full takes nothing of size any more."""
_SMALLEST = 768
"""Bytes of memory that the smallest packet takes (skb->truesize): without room for it, all are thrown away."""
_LATE, _DEAD = 10.0, 60.0
"""Seconds that a call is not answered: longer than a slow server takes; then the kernel's log complains, too."""
_MOST_NETS, _MOST_CLIENTS, _MOST_CALLS, _MOST_DEVICES = 1024, 4096, 4096, 1024
_NFS = 100003
"""The number of NFS among the programs of RPC."""
_NAMED = 3


def unread(machine: Machine) -> Iterator[Found]:
    """Sockets that have received as much as they may: nobody reads it, or not as fast as it comes.

    Good to know and no more: many a program opens a socket that it only sends by, or is just about to read.
    """
    full = [item for item in machine.sockets if item.state != LISTEN and item.received
            and (item.received >= _FULL * item.room or item.received + _SMALLEST > item.room)]
    yield from _told(full, "received all that it may keep, and nobody reads it",
                     lambda item: human_bytes(item.received), INFO)


def unaccepted(machine: Machine) -> Iterator[Found]:
    """Listening sockets with as many connections as they may have waiting: nobody accepts them."""
    full = [item for item in machine.sockets if item.protocol == "TCP" and item.state == LISTEN
            and item.pending > item.most_pending]
    yield from _told(full, "has as many connections waiting as it may, and nobody accepts them",
                     lambda item: str(item.pending))


def _told(full: list[Socket], words: str, much: Callable[[Socket], str],
          severity: Severity = WARNING) -> Iterator[Found]:
    if not full:
        return
    listed = [f"{item.protocol} {item.ends} of {item.user} ({much(item)})" for item in full]
    more = f", and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    title = f"A socket {words}" if len(full) == 1 else f"{len(full)} sockets: each {words}"
    yield Found(severity, title, "; ".join(listed[:_NAMED]) + more, f"struct sock {full[0].address:x}")


def calls(machine: Machine) -> Iterator[Found]:
    """Servers that do not answer calls of NFS and other protocols over RPC."""
    for client in _clients(machine):
        late: list[tuple[float, drgn.Object]] = []
        for task in islice(list_for_each_entry("struct rpc_task", client.cl_tasks.address_of_(), "tk_task"),
                           _MOST_CALLS):
            begun, now = int(task.tk_start.value_()), machine.crash.now_ns
            if begun > 0 and now is not None and (now - begun) / 1e9 >= _LATE:
                late.append(((now - begun) / 1e9, task))
        if late:
            seconds, task = max(late, key=lambda pair: pair[0])
            procedure = task.tk_msg.rpc_proc
            name = procedure.p_name.string_().decode("ascii", "replace") if procedure and procedure.p_name else "a call"
            yield Found(CRITICAL if seconds >= _DEAD else WARNING,
                        f"The server {_server(client)} did not answer a call for {human_seconds(seconds)}",
                        f"{len(late)} call{'s' if len(late) > 1 else ''} in flight; the oldest is {name} of "
                        f"{text(client.cl_program.name)}", f"struct rpc_clnt {client.value_():x}")


def loopback(machine: Machine) -> Iterator[Found]:
    """NFS is mounted from this machine itself: under pressure for memory both ends wait for each other."""
    own: set[str] | None = None
    for client in _clients(machine):
        if int(client.cl_prog.value_()) != _NFS:
            continue
        if own is None:
            own = {str(address) for net in islice(for_each_net(machine.kernel.prog), _MOST_NETS)
                   for device in islice(for_each_netdev(net), _MOST_DEVICES) for address in netdev_ipv4_addrs(device)}
        address = _peer(client)
        if address is not None and (address.is_loopback or str(address) in own):
            yield Found(WARNING, f"The NFS server {_server(client)} is this machine itself",
                        "under pressure for memory, client and server wait for each other", "mount")


def _clients(machine: Machine) -> Iterator[drgn.Object]:
    """Yield each struct rpc_clnt *."""
    prog = machine.kernel.prog
    number = prog.read_u32(prog.symbol("sunrpc_net_id").address)
    for net in islice(for_each_net(prog), _MOST_NETS):
        own = drgn.cast("struct sunrpc_net *", net.gen.ptr[number])
        yield from islice(list_for_each_entry("struct rpc_clnt", own.all_clients.address_of_(), "cl_clients"),
                          _MOST_CLIENTS)


def _server(client: drgn.Object) -> str:
    name, address = client.cl_xprt.servername, _peer(client)
    shown = text(name) if name else ""
    return f"{shown} ({address})" if shown and address and shown != str(address) else shown or str(address or "unknown")


def _peer(client: drgn.Object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    place = client.cl_xprt.addr.address_of_()
    family = int(client.cl_xprt.addr.ss_family.value_())
    prog = client.prog_
    if family == 2:             # AF_INET: struct sockaddr_in has port and address behind the family
        return ipaddress.IPv4Address(prog.read(place.value_() + 4, 4))
    if family == 10:            # AF_INET6: struct sockaddr_in6 has flow information between them
        return ipaddress.IPv6Address(prog.read(place.value_() + 8, 16))
    return None


_SOCKETS = ("struct sock", "struct socket", "symbol socket_file_ops")
_RPC = ("struct rpc_clnt", "struct sunrpc_net", "variable net_namespace_list")
CHECKS = (
    Check("unread sockets", unread, _SOCKETS),
    Check("unaccepted connections", unaccepted, _SOCKETS),
    Check("RPC calls", calls, _RPC, with_symbol("sunrpc_net_id")),
    Check("NFS from itself", loopback, _RPC, with_symbol("sunrpc_net_id")),
)

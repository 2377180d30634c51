"""`net -a`: who is near on the network, by IPv4 (ARP) and IPv6.

Source: include/net/neighbour.h, struct neigh_table, struct neighbour; include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn
from drgn.helpers.linux.net import netdev_name

from kdumpy.crash.failures import explain
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump

_TABLES = {"arp_tbl": 4, "nd_tbl": 16}
"""Bytes of an address, by the table."""
_STATES = ("INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT")
"""By bit of nud_state: uapi/linux/neighbour.h."""
_TYPES = {0: "NETROM", 1: "ETHER", 2: "EETHER", 3: "AX25", 4: "PRONET", 5: "CHAOS", 6: "IEEE802", 7: "ARCNET",
          8: "APPLETLK", 15: "DLCI", 19: "ATM", 23: "METRICOM", 24: "IEEE1394", 27: "EUI64", 32: "INFINIBAND"}
"""uapi/linux/if_arp.h, ARPHRD_*, by the names that crash shows; it knows those up to METRICOM without ATM."""
_WIDEST_SHIFT = 24
"""16 million lists; the kernel has one for each neighbour at most."""
_MOST = 1 << 20
_LONGEST = 32
"""MAX_ADDR_LEN (include/linux/netdevice.h), bytes."""


@dataclass(frozen=True)
class NeighbourRow:
    """A machine that is near, or that was looked for."""

    neighbour: int
    """Address of its struct neighbour."""
    address: str
    """Its address in the network."""
    type: str
    """Of the hardware: ETHER, INFINIBAND, …; UNKNOWN for another."""
    hardware_address: str
    """Two digits a byte, with colons."""
    device: str
    state: tuple[str, ...]
    """REACHABLE, STALE, FAILED, …; empty for one that nobody has asked for yet."""


def neighbour_rows(session: Session) -> Iterator[NeighbourRow]:
    """Yield the neighbours of all devices, in all namespaces.

    Raises:
        DamagedDump: not all can be read; said behind the others.
        NotInDump: the tables are not known.
    """
    problems: list[str] = []
    tables = [name for name in _TABLES if name in session.prog]
    if not tables:
        raise NotInDump("the tables of neighbours are not known", why="the kernel has no network, or no names of it")
    for name in tables:
        try:
            yield from _table(session.prog, name, problems)
        except READ_ERRORS as error:
            problems.append(f"{name}: {explain(error)}")
    if problems:
        raise DamagedDump("not all neighbours can be read", why="; ".join(problems))


def _table(prog: drgn.Program, name: str, problems: list[str]) -> Iterator[NeighbourRow]:
    hashed = prog[name].nht.read_()
    if not hashed:              # the module that has the table is only just loaded
        return
    shift = hashed.hash_shift.value_()
    if shift > _WIDEST_SHIFT:
        raise DamagedDump(f"2^{shift} lists are not believed", where=name)
    # 41b3caa7c076 "neighbour: Add hlist_node to struct neighbour" (6.13).
    modern = hashed[0].type_.has_member("hash_heads")
    heads = (hashed.hash_heads if modern else hashed.hash_buckets).value_()
    link = "hash.next" if modern else "next"
    offset = int(drgn.offsetof(prog.type("struct neighbour"), link))
    # Where the link leads: to the next one's link, or to the neighbour itself.
    back = int(drgn.offsetof(prog.type("struct neighbour"), "hash")) if modern else 0
    seen = set[int]()
    for first in struct.unpack(f"<{1 << shift}Q", prog.read(heads, 8 << shift)):
        current = first
        while current:
            if current in seen or len(seen) >= _MOST:
                problems.append(f"{name}: a list runs in a circle at {current - back:016x}" if current in seen
                                else f"{name}: cut after {_MOST} neighbours")
                break
            seen.add(current)
            try:
                yield _row(drgn.Object(prog, "struct neighbour *", value=current - back), _TABLES[name])
                current = prog.read_u64(current - back + offset)
            except READ_ERRORS as error:
                problems.append(f"{name}, {current - back:016x}: {explain(error)}")
                break


def _row(neighbour: drgn.Object, size: int) -> NeighbourRow:
    prog = neighbour.prog_
    address = ipaddress.ip_address(prog.read(neighbour.primary_key.address_of_(), size))
    device = neighbour.dev.read_()
    length = min(device.addr_len.value_(), _LONGEST, len(neighbour.ha))
    bits = neighbour.nud_state.value_()
    return NeighbourRow(neighbour.value_(), str(address), _TYPES.get(device.type.value_(), "UNKNOWN"),
                        prog.read(neighbour.ha.address_, length).hex(":") if length else "",
                        netdev_name(device).decode("utf-8", "backslashreplace"),
                        tuple(name for bit, name in enumerate(_STATES) if bits >> bit & 1))


def neighbour_lines(rows: Iterable[NeighbourRow]) -> Iterator[str]:
    """Lay the neighbours out as crash does, which puts colons between the bytes of Ethernet's addresses alone."""
    for number, row in enumerate(rows):
        if not number:
            yield "NEIGHBOUR        IP ADDRESS      HW TYPE    HW ADDRESS         DEVICE  STATE"
        hardware = row.hardware_address if row.type == "ETHER" else row.hardware_address.replace(":", " ")
        yield (f"{row.neighbour:016x} {row.address:<15} {row.type:<10} {hardware:<17}  {row.device:<6}  "
               f"{'|'.join(row.state)}").rstrip()

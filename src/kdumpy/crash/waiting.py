"""Messages on their way when the kernel died: audit records for the daemon, lines for the log."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.percpu import per_cpu_ptr

from kdumpy.crash.session import Session
from kdumpy.errors import DamagedDump, NotInDump

_QUEUES = ("audit_queue", "audit_retry_queue", "audit_hold_queue")
"""Source: kernel/audit.c."""
_HEADER = 16
"""Bytes of struct nlmsghdr in front of an audit record's text."""
_MOST = 1 << 20
_LONGEST = 64 << 10


def audit(session: Session) -> Iterator[str]:
    """Yield the records that wait for the audit daemon.

    Raises:
        NotInDump: there are none, or the kernel has no audit.
    """
    prog, found, known = session.prog, False, False
    for name in _QUEUES:
        try:
            head = prog.symbol(name).address
        except LookupError:
            continue
        known = True
        at = drgn.Object(prog, "struct sk_buff_head *", value=head).next.value_()
        count = 0
        while at != head:
            count += 1
            if count > _MOST:
                raise DamagedDump(f"{name} has no end", where=f"address {at:016x}")
            packet = drgn.Object(prog, "struct sk_buff *", value=at)
            size = packet.len.value_()
            if not _HEADER <= size <= _LONGEST:
                raise DamagedDump(f"an audit record of {size} bytes is not believed", where=f"address {at:016x}",
                                  why=f"{count - 1} of {name} were read")
            data = prog.read(packet.data.value_(), size)
            found = True
            kind = int.from_bytes(data[4:6], "little")
            yield f"type={kind} {data[_HEADER:].rstrip(bytes(1)).decode('utf-8', 'backslashreplace')}"
            at = packet.next.value_()
    if not found:
        raise NotInDump("no audit record waits" if known else "this kernel has no audit")


def in_cpu_buffers(session: Session) -> Iterator[str]:
    """Yield the lines that the CPUs kept from the log, in an NMI or while it was locked.

    Raises:
        NotInDump: there are none, or the kernel has no such buffers.
    """
    prog, found, known = session.prog, False, False
    for name in ("nmi_print_seq", "safe_print_seq"):
        try:
            address = prog.symbol(name).address
        except LookupError:
            continue
        known = True
        pointer = drgn.Object(prog, "struct printk_safe_seq_buf *", value=address)
        for cpu in session.cpus("a"):
            own = per_cpu_ptr(pointer, cpu)
            size = own.len.counter.value_()
            if not 0 <= size <= _LONGEST:
                raise DamagedDump(f"a buffer of {size} bytes is not believed", where=f"address {own.value_():016x}")
            data = prog.read(own.buffer.address_of_().value_(), size) if size else b""
            for line in data.decode("utf-8", "backslashreplace").splitlines():
                found = True
                yield f"CPU {cpu} {name.removesuffix('_print_seq')}: {line}"
    if not known:
        raise NotInDump("the CPUs of this kernel have no buffers of their own",
                        why="since 5.15 every message goes to the log at once")
    if not found:
        raise NotInDump("no message waits in the CPUs' buffers")

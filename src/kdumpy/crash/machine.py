"""What `sys` and `mach` both tell of the machine."""

from __future__ import annotations

from drgn.helpers.linux.mmzone import for_each_online_pgdat

from kdumpy.crash.session import Session


def memory_present(session: Session) -> int:
    """Return the bytes of memory that the machine has, those that the kernel does not give out too."""
    pages = sum(node.node_present_pages.value_() for node in for_each_online_pgdat(session.prog))
    return int(pages) * int(session.prog["PAGE_SIZE"])


def memory_size(size: int) -> str:
    """Return bytes as crash shows the size of the memory."""
    for unit, name in ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size >> 10} KB"


def processor_speed(session: Session) -> str:
    """Return the speed as crash shows it.

    Raises:
        LookupError: the kernel of this machine does not know it.
    """
    return f"{word(session, 'cpu_khz', 4) // 1000} Mhz"


def word(session: Session, name: str, size: int = 8) -> int:
    """Return a variable that the kernel's types may leave out."""
    return int.from_bytes(session.prog.read(session.prog.symbol(name).address, size), "little")

"""`crashkernel=`: how much memory is kept for the capture kernel, read as the kernel reads it, and advised.

Source: kernel/crash_reserve.c (kernel/crash_core.c before 6.9), Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdumpy.errors import UsageError
from kdumpy.host.machine import Machine
from kdumpy.host.settings import Settings
from kdumpy.units import human_bytes

MIB = 1 << 20
GIB = 1 << 30

UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}

ROUND_MEMORY = 128 * MIB
"""The kernel rounds memory up to this before it looks at ranges (Linux 6.0, "kdump: round up the total memory size to
128M for crashkernel reservation"; distributions have it in older ones): firmware that keeps some of 2 GiB does not
make them less than 2 GiB."""

STEP = 16 * MIB
"""Sizes that are advised are multiples of this: the reservation's alignment on every architecture."""

TABLE: dict[str, str] = {
    "x86_64": "512M-2G:192M,2G-64G:256M,64G-:512M",
    "aarch64": "512M-2G:192M,2G-4G:256M,4G-64G:320M,64G-:576M",
    "ppc64le": "2G-4G:384M,4G-16G:512M,16G-64G:1G,64G-128G:2G,128G-:4G",
    "s390x": "512M-4G:160M,4G-64G:192M,64G-:256M",
}
"""What a machine of an architecture gets. Source: kdump-utils' defaults (kdump-lib.sh,
kdump_get_arch_recommend_crashkernel), lower ranges ours: the capture image is small (docs/capture-image.md)."""

OTHERS = "1G-4G:256M,4G-64G:384M,64G-:768M"
"""On an architecture that the table lacks."""

PAGES_64K = 112 * MIB
"""More on arm64 with pages of 64 KiB: everything is kept in larger pieces. Source: as the table, 100 MiB there."""

PACKAGED = ("384M-:128M", "512M-:192M", "2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M")
"""What kdump-tools' packages put into GRUB's configuration: nobody's choice, so `auto` may raise it."""

MEND = "auto, or as the kernel takes it: 256M, `512M,high`, `512M,high 128M,low`, `2G-64G:256M,64G-:512M`"


@dataclass(frozen=True, slots=True)
class Range:
    """One range of a reservation that depends on the machine's memory."""

    start: int
    """Bytes of memory from which it holds."""
    end: int | None
    """Bytes of memory below which it holds; None: no end."""
    size: int
    """Bytes that are reserved."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """One `crashkernel=`."""

    text: str
    size: int
    """Bytes; 0 where `ranges` say it."""
    ranges: tuple[Range, ...] = ()
    offset: int | None = None
    """Physical address it must lie at; None: the kernel chooses."""
    kind: str = ""
    """Empty, `high` (anywhere, with a low part of the kernel's choice), `low` (that part's size) or `cma`."""

    def size_for(self, memory_bytes: int) -> int:
        """Return the bytes that are reserved on a machine with that much memory; 0: nothing is."""
        if not self.ranges:
            return self.size
        memory = -(-memory_bytes // ROUND_MEMORY) * ROUND_MEMORY
        return next((one.size for one in self.ranges
                     if one.start <= memory and (one.end is None or memory < one.end)), 0)


@dataclass(frozen=True, slots=True)
class Advice:
    """What `crashkernel=` should be."""

    value: str
    """For the boot loader: `256M`; or two, `512M,high 128M,low`."""
    why: str
    """Where it comes from, for the plan."""
    keep: bool = False
    """The value is there already, and stays."""
    warnings: tuple[str, ...] = ()


def spelled(value: str) -> str:
    """Return a configured value as it stands on the command line."""
    return " ".join(f"crashkernel={text}" for text in value.split())


def read(text: str) -> tuple[Reservation, ...]:
    """Read what a configuration says: one value, or `X,high Y,low`, of which the first is what is loaded into.

    Raises:
        UsageError: the kernel would not take it, or not both together.
    """
    found = sorted((parse(part) for part in text.split()), key=lambda one: one.kind)
    kinds = [one.kind for one in found]
    if not found or (len(found) > 1 and kinds != ["high", "low"]):
        raise _wrong(text, "only `X,high` and `Y,low` go together" if found else "nothing is said")
    return tuple(found)


def parse(text: str) -> Reservation:
    """Read the value of one `crashkernel=`.

    Raises:
        UsageError: the kernel would not take it.
    """
    body, at, tail = text.partition("@")
    offset = _size(tail, text) if at else None
    if ":" in body:
        return Reservation(text, 0, tuple(_range(part, text) for part in body.split(",")), offset)
    size, comma, kind = body.partition(",")
    if comma and (kind not in ("high", "low", "cma") or at):
        raise _wrong(text, f"{kind!r} is not high, low or cma" if not at else "an address goes with a plain size")
    return Reservation(text, _size(size, text), (), offset, kind)


def _range(part: str, text: str) -> Range:
    span, _, size = part.partition(":")
    start, dash, end = span.partition("-")
    if not dash:
        raise _wrong(text, f"the range {part!r} lacks its `-`")
    first, last = _size(start, text), _size(end, text) if end else None
    if last is not None and last <= first:
        raise _wrong(text, f"the range {part!r} ends before it begins")
    return Range(first, last, _size(size, text))


def _size(text: str, whole: str) -> int:
    """Read a size as memparse() does: decimal, 0x… or octal, and a letter."""
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGTkmgt]?)", text)
    if match is None:
        raise _wrong(whole, f"{text!r} is not a size")
    digits = match[1]
    try:
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" and len(digits) > 1 else 10)
    except ValueError:
        raise _wrong(whole, f"{text!r} is not a size") from None
    return number * UNITS[match[2].upper()]


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"crashkernel is {text[:80]!r}", why=why, mend=MEND)


def size_for(text: str, memory_bytes: int) -> int:
    """Return the bytes that a configured value reserves for loading on a machine with that much memory.

    Raises:
        UsageError: as `read`.
    """
    return read(text)[0].size_for(memory_bytes)


def given(cmdline: str) -> tuple[str, ...]:
    """Return the values of all `crashkernel=` on a command line, in order; the kernel takes the last of a kind."""
    return tuple(word.removeprefix("crashkernel=") for word in cmdline.split() if word.startswith("crashkernel="))


def effective(cmdline: str, memory_bytes: int) -> int:
    """Return the bytes that a command line reserves, as the kernel takes it: the last of its kind, a plain one first.

    What the kernel would not take reserves nothing, as there. `,cma` comes on top; it is no safe place, see `advise`.
    """
    found: dict[str, int] = {}
    for text in filter(_taken, given(cmdline)):
        one = parse(text)
        found[one.kind] = one.size_for(memory_bytes)
    return found.get("") or found.get("high", 0)


def _taken(text: str) -> bool:
    """Return whether the kernel takes this value (`auto` it has never known)."""
    try:
        parse(text)
    except UsageError:
        return False
    return True


def advise(machine: Machine, settings: Settings, measured: int | None = None, *, next_cmdline: str | None = None,
           ours: bool = False, image: int = 0) -> Advice:
    """Say what `crashkernel=` should be on a machine.

    Args:
        machine: its memory and architecture are looked up in the table.
        settings: `crashkernel` of the configuration; all but `auto` is taken as it is.
        measured: the smallest safe reservation that a rehearsal found, in bytes: the table's value is raised to it.
        next_cmdline: what the next boot gets (`BootLoader.next_cmdline`); None: the running kernel's command line.
        ours: the `crashkernel=` there was set by kdumpy, so that `auto` may change it; else it is the administrator's
            (or the distribution's) and is kept where it does.
        image: bytes that a capture kernel with this host's image takes (`images.need`): the table knows small ones.

    Raises:
        UsageError: the configured value is none that the kernel takes.
    """
    memory = machine.memory_bytes
    if settings.crashkernel != "auto":
        configured = read(settings.crashkernel)
        return Advice(" ".join(one.text for one in configured), "the configuration says so",
                      warnings=_of_all(configured, machine, measured, image))
    wanted, why = _wanted(machine, measured, image)
    there = tuple(text for text in given(machine.cmdline if next_cmdline is None else next_cmdline) if _taken(text))
    if there:
        size, leading = effective(" ".join(f"crashkernel={text}" for text in there), memory), _leading(there)
        if size == wanted or (leading in PACKAGED and size > wanted):
            return Advice(leading, "it is there already", keep=True)
        if size and not ours and leading not in PACKAGED:
            return Advice(leading, f"it was set by hand or by the distribution and stays; {why} is {wanted // MIB}M",
                          keep=True, warnings=_of_all(tuple(map(parse, leading.split())), machine, measured, image))
    return Advice(f"{wanted // MIB}M", why, warnings=_warnings(Reservation("", wanted), machine, measured))


def _wanted(machine: Machine, measured: int | None, image: int = 0) -> tuple[int, str]:
    """Return the bytes for a machine and where they come from."""
    table = parse(TABLE.get(machine.architecture, OTHERS))
    size = table.size_for(machine.memory_bytes) or table.ranges[0].size
    why = f"the table's value for {machine.architecture} with {human_bytes(machine.memory_bytes)}"
    if machine.architecture == "aarch64" and "64k" in machine.release:      # RHEL's and Debian's name of that kernel
        size += PAGES_64K
        why += " and pages of 64 KiB"
    if image > size and not measured:
        size = -(-image // STEP) * STEP
        why = f"the capture image and what opens the target take about {human_bytes(image)}, more than {why}"
    if measured and measured > size:
        size = -(-measured // STEP) * STEP
        why = f"a rehearsal needed {human_bytes(measured)}, more than {why}"
    return size, why


def _leading(there: tuple[str, ...]) -> str:
    """Return what says how much is reserved: the last plain one, else the last `,high` with `,low`, else the last."""
    kinds = {parse(text).kind: text for text in there}
    both = " ".join(kinds[kind] for kind in ("high", "low") if kind in kinds)
    return kinds.get("") or (both if "high" in kinds else there[-1])


def _of_all(found: tuple[Reservation, ...], machine: Machine, measured: int | None, image: int) -> tuple[str, ...]:
    """Return what is wrong with a reservation that somebody chose, and with the low part that goes with it."""
    said = _of_a_hand(found[0], machine, measured, image)
    if len(found) > 1 and not found[1].size:
        # Source: kernel/crash_reserve.c, reserve_crashkernel_generic(): without it swiotlb of the capture kernel has
        # nothing, and drivers of devices that reach only 4 GiB fail.
        said += ("crashkernel=0,low leaves nothing below 4 GiB: the capture kernel's drivers may lack memory that "
                 "their devices reach",)
    return said


def _of_a_hand(reservation: Reservation, machine: Machine, measured: int | None, image: int) -> tuple[str, ...]:
    """Return what is wrong with a reservation that somebody chose: that it is less than advised, too."""
    warnings = _warnings(reservation, machine, measured)
    size, (wanted, why) = reservation.size_for(machine.memory_bytes), _wanted(machine, measured, image)
    if reservation.kind in ("", "high") and 0 < size < wanted and not any("rehearsal" in said for said in warnings):
        warnings += (f"crashkernel={reservation.text} reserves {human_bytes(size)}, less than the advised "
                     f"{human_bytes(wanted)} ({why}): `kdumpy rehearse` shows whether it is enough, `kdumpy "
                     f"setup --crashkernel {wanted // MIB}M` changes it",)
    return warnings


def _warnings(reservation: Reservation, machine: Machine, measured: int | None) -> tuple[str, ...]:
    """Return what is wrong with a reservation on this machine."""
    size, memory = reservation.size_for(machine.memory_bytes), machine.memory_bytes
    said = []
    if reservation.kind == "cma":
        said.append("crashkernel=…,cma lends the memory to programs until the crash: their pages there are missing in "
                    "the dump, devices may still write to it, and kernels before 6.17 ignore it; it only helps beside "
                    "a plain crashkernel=")
    if reservation.kind == "low":
        said.append("crashkernel=…,low is only taken beside crashkernel=…,high: alone it reserves nothing")
    if reservation.kind == "high" and machine.architecture not in ("x86_64", "aarch64", "riscv64", "loongarch64"):
        said.append(f"crashkernel=…,high is not known on {machine.architecture}")
    if reservation.offset is not None:
        said.append("crashkernel=…@address fails where anything else lies there; without the address the kernel "
                    "chooses one")
    if reservation.ranges and not size:
        said.append(f"none of the ranges takes in {human_bytes(memory)}: nothing is reserved")
    if measured and reservation.kind in ("", "high") and 0 < size < measured:
        said.append(f"a rehearsal needed {human_bytes(measured)}, and {human_bytes(size)} are reserved")
    if memory and size * 4 > memory:
        said.append(f"the capture kernel takes {human_bytes(size)} of the machine's {human_bytes(memory)}")
    return tuple(said)

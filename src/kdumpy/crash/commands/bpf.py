"""`bpf`: the eBPF programs and maps, and the programs' code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import drgn
from drgn.helpers.linux.bpf import bpf_map_for_each, bpf_prog_for_each, bpf_prog_used_maps
from drgn.helpers.linux.timekeeping import ktime_get_coarse_boottime_ns
from drgn.helpers.linux.user import kuid_val

from kdumpy.crash.bpfcode import BpfInstruction, instructions
from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.commands.struct import struct_text
from kdumpy.crash.disassembler import Disassembler
from kdumpy.crash.session import Session
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.errors import DamagedDump, NotInDump, UsageError

_MOST_INSTRUCTIONS = 1 << 20
"""BPF_COMPLEXITY_LIMIT_INSNS; a program cannot be longer."""
_LARGEST_JITED = 64 << 20


@dataclass(frozen=True)
class Machine:
    """An instruction that the program was compiled to."""

    address: int
    text: str


@dataclass(frozen=True)
class ProgramRow:
    """An eBPF program."""

    kind: str
    """program"""
    id: int
    program: int
    """Address of its struct bpf_prog."""
    aux: int
    """Address of its struct bpf_prog_aux."""
    type: str
    tag: str
    maps: tuple[int, ...]
    """Ids of the maps that it uses."""
    name: str
    code_bytes: int
    """Of the code that the verifier made."""
    jited_bytes: int
    """Of the machine code; 0 where it is interpreted."""
    memory_bytes: int
    loaded: float | None
    """Seconds since 1970; None where it is not known."""
    gpl: bool
    uid: int | None
    code: tuple[BpfInstruction, ...]
    """With -t, -T."""
    machine: tuple[Machine, ...]
    """With -j."""


@dataclass(frozen=True)
class MapRow:
    """An eBPF map."""

    kind: str
    """map"""
    id: int
    map: int
    """Address of its struct bpf_map."""
    type: str
    flags: int
    key_bytes: int
    value_bytes: int
    entries: int
    """How many it can hold."""
    name: str
    uid: int | None
    """None since 5.11, when maps stopped to know it."""


class Bpf(Command[Any]):
    """List the eBPF programs and maps; show their code.

    Example:
        crash> bpf
         ID     BPF_PROG       BPF_PROG_AUX   BPF_PROG_TYPE       TAG        USED_MAPS
          1 ff64b29e800d9000 ff2804e567de4800 SOCKET_FILTER bf0176d6004c93ff     1
    """

    names = ("bpf",)
    example = "bpf"
    row = ProgramRow
    args = (
        Arg("-p", dest="program", metavar="ID", help="a program, and more of it"),
        Arg("-P", dest="programs", action="store_true", help="all programs, and more of them"),
        Arg("-m", dest="map", metavar="ID", help="a map, and more of it"),
        Arg("-M", dest="maps", action="store_true", help="all maps, and more of them"),
        Arg("-t", dest="code", action="store_true", help="with -p or -P: the code"),
        Arg("-T", dest="raw", action="store_true", help="the same with its bytes"),
        Arg("-j", dest="jited", action="store_true", help="with -p or -P: the machine code"),
        Arg("-s", dest="structs", action="store_true", help="the structures too"),
        Arg("-x", dest="radix", action="store_const", const=16, help="with -s: integers in hexadecimal"),
        Arg("-d", dest="radix", action="store_const", const=10, help="with -s: integers in decimal"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[Any]:
        """Yield programs, then maps."""
        some_programs, some_maps = options.program or options.programs, options.map or options.maps
        if (options.code or options.raw or options.jited) and not some_programs:
            raise UsageError("-t, -T and -j go with -p ID or -P", where="bpf")
        prog = session.prog
        maps = {value.value_(): value.id.value_() for value in bpf_map_for_each(prog)}
        if some_programs or not some_maps:
            wanted = _id(options.program)
            found = [value for value in bpf_prog_for_each(prog)
                     if wanted is None or value.aux.id.value_() == wanted]
            if wanted is not None and not found:
                raise NotInDump(f"there is no eBPF program {wanted}")
            yield from (_program(session, value, maps, options) for value in found)
        if some_maps or not some_programs:
            wanted = _id(options.map)
            chosen = [value for value in bpf_map_for_each(prog) if wanted is None or value.id.value_() == wanted]
            if wanted is not None and not chosen:
                raise NotInDump(f"there is no eBPF map {wanted}")
            yield from map(_map, chosen)

    def render(self, rows: Iterable[Any], session: Session, options: Options) -> Iterator[str]:
        """Lay programs and maps out as crash does."""
        found = list(rows)
        some = options.program or options.programs or options.map or options.maps
        for number, kind in enumerate(("program", "map")):
            own = [row for row in found if row.kind == kind]
            if not own and some:
                continue
            if number and (not some or any(row.kind == "program" for row in found)):
                yield ""
            if not own:
                yield f"(no eBPF {kind}s loaded)"
            for place, row in enumerate(own):
                if not place or some:
                    if place:
                        yield ""
                    yield _HEADERS[kind]
                yield from _program_lines(row, session, options, more=bool(some)) if kind == "program" \
                    else _map_lines(row, session, options, more=bool(some))


_HEADERS = {"program": " ID     BPF_PROG       BPF_PROG_AUX   BPF_PROG_TYPE       TAG        USED_MAPS",
            "map": " ID     BPF_MAP       BPF_MAP_TYPE   MAP_FLAGS"}


def _id(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no id of a program or map", where="bpf")
    return int(text)


def _program(session: Session, value: drgn.Object, maps: dict[int, int], options: Options) -> ProgramRow:
    aux, length, jited = value.aux, value.len.value_(), value.jited_len.value_()
    loaded = None
    try:
        crashed = session.kernel.system.panic_time
        if crashed is not None:
            loaded = crashed - (ktime_get_coarse_boottime_ns(session.prog).value_() - aux.load_time.value_()) / 1e9
    except READ_ERRORS:
        pass
    return ProgramRow(
        "program", aux.id.value_(), value.value_(), aux.value_(), _kind(value.type, "BPF_PROG_TYPE_"),
        bytes(value.tag.to_bytes_()).hex(), tuple(used.id.value_() for used in bpf_prog_used_maps(value)), _name(aux),
        8 * length, jited, value.pages.value_() * int(session.prog["PAGE_SIZE"]), loaded,
        bool(value.gpl_compatible), _uid(aux),
        tuple(_code(session, value, length, maps)) if options.code or options.raw else (),
        tuple(_machine(session, value, jited)) if options.jited else ())


def _code(session: Session, value: drgn.Object, length: int, maps: dict[int, int]) -> Iterator[BpfInstruction]:
    if not 0 < length <= _MOST_INSTRUCTIONS:
        raise DamagedDump(f"a program of {length} instructions is none", where=f"address {value.value_():016x}")
    at = value.value_() + drgn.offsetof(session.prog.type("struct bpf_prog"), "insnsi")
    base = session.prog.symbol("__bpf_call_base").address

    def function(number: int) -> str:
        place = session.place(base + number)
        return f"{place}#{number}" if place else f"#{number}"

    def pointer(number: int) -> str:
        if number in maps:
            return f"map[id:{maps[number]}]"
        place = session.place(number)
        return f"{number:#x} <{place}>" if place else f"{number:#x}"

    return instructions(session.prog.read(at, 8 * length), function, pointer)


def _machine(session: Session, value: drgn.Object, size: int) -> Iterator[Machine]:
    start = value.bpf_func.value_()
    if not size:
        raise NotInDump("the program has no machine code", why="it is interpreted", where=f"program {value.aux.id}")
    if size > _LARGEST_JITED:
        raise DamagedDump(f"machine code of {size} bytes is not believed", where=f"address {start:016x}")
    for one in Disassembler(session.prog).range(start, start + size):
        target = session.place(one.target) if one.target else ""
        yield Machine(one.address, f"{one.text} <{target}>" if target else one.text)


def _map(value: drgn.Object) -> MapRow:
    flags = value.map_flags.value_() if hasattr(value, "map_flags") else 0
    return MapRow("map", value.id.value_(), value.value_(), _kind(value.map_type, "BPF_MAP_TYPE_"), flags,
                  value.key_size.value_(), value.value_size.value_(), value.max_entries.value_(), _name(value),
                  _uid(value.memory if hasattr(value, "memory") else value))


def _kind(value: drgn.Object, prefix: str) -> str:
    return str(value.format_(type_name=False)).removeprefix(prefix)


def _name(value: drgn.Object) -> str:
    try:
        return str(value.name.string_().decode("utf-8", "backslashreplace"))
    except AttributeError:      # before 4.15
        return ""


def _uid(value: drgn.Object) -> int | None:
    try:
        return int(kuid_val(value.user.uid)) if value.user else None
    except (AttributeError, drgn.FaultError):
        return None


def _program_lines(row: ProgramRow, session: Session, options: Options, *, more: bool) -> Iterator[str]:
    used = ",".join(map(str, row.maps))
    yield f"{row.id:>3} {row.program:016x} {row.aux:016x} {row.type:^13} {row.tag} {used:^9}".rstrip()
    if not more:
        return
    yield f"     XLATED: {row.code_bytes}  JITED: {row.jited_bytes}  MEMLOCK: {row.memory_bytes}"
    when = "(unknown)" if row.loaded is None else time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(row.loaded))
    yield f"     LOAD_TIME: {when}"
    yield (f"     GPL_COMPATIBLE: {'yes' if row.gpl else 'no'}  NAME: {_quoted(row.name)}  "
           f"UID: {'(unknown)' if row.uid is None else row.uid}")
    if row.code:
        yield ""
        for one in row.code:
            yield f"{one.number:>4}: {one.text}"
            if options.raw:
                yield f"       {bytes.fromhex(one.bytes).hex(' ')}"
    if row.machine:
        yield ""
        yield from (f"   {one.address:#x}:  {one.text}" for one in row.machine)
    if options.structs:
        for kind, address in (("bpf_prog", row.program), ("bpf_prog_aux", row.aux)):
            yield ""
            yield from _struct(session, kind, address, options)


def _map_lines(row: MapRow, session: Session, options: Options, *, more: bool) -> Iterator[str]:
    yield f"{row.id:>3} {row.map:016x} {row.type:^14} {row.flags:08x}"
    if not more:
        return
    yield f"     KEY_SIZE: {row.key_bytes}  VALUE_SIZE: {row.value_bytes}  MAX_ENTRIES: {row.entries}"
    yield f"     NAME: {_quoted(row.name)}  UID: {'(unused)' if row.uid is None else row.uid}"
    if options.structs:
        yield ""
        yield from _struct(session, "bpf_map", row.map, options)


def _struct(session: Session, kind: str, address: int, options: Options) -> Iterator[str]:
    value = drgn.Object(session.prog, f"struct {kind}", address=address)
    yield from struct_text(session, value, [], options.radix).split("\n")


def _quoted(name: str) -> str:
    return f'"{name}"' if name else "(unused)"


COMMAND = Bpf()

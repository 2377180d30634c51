"""What a verdict rests on: observations, each with the shell command that shows it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.model import Evidence
from kdumpy.diagnosis.oops import Event
from kdumpy.kernel.values import Cpu, Frame
from kdumpy.units import human_seconds

if TYPE_CHECKING:
    from kdumpy.diagnosis.crash import Crash


def in_a_line(frames: Iterable[Frame]) -> str:
    """Return a stack in a line, innermost first; what left no frame of its own, and so is not in `bt`, is marked."""
    return " ← ".join(_named(frame) for frame in frames if frame.symbol and not frame.user)


def _named(frame: Frame) -> str:
    return f"{frame.function} (tail call)" if frame.jumped else str(frame.function)


def _belongs(place: Pointee | None) -> tuple[str, ...]:
    """Return the shell's line that shows what an address lies in."""
    if place is None:
        return ()
    if place.symbol:
        return (f"sym {place.address:x}",)
    return (f"kmem -s {place.address:x}",) if place.kind == "slab" else ()


class CrashEvidence:
    """The observations that causes share."""

    def __init__(self, crash: Crash) -> None:
        self.crash = crash

    def command(self, *lines: str) -> str:
        """Return the shell command that shows something by lines of the crash shell."""
        return " ".join((f"kdumpy crash {shlex.quote(str(self.crash.path))}",
                         *(f"-e {shlex.quote(line)}" for line in lines)))

    def log(self, event: Event | None = None, what: str = "the kernel's own words") -> list[Evidence]:
        """Return what the kernel said."""
        event = event or self.crash.event
        if event is None:
            return []
        if event.inferred:
            return [Evidence("what the dump shows", event.text, self.command("bt"))]
        return [Evidence(what, event.text, f"kdumpy log {shlex.quote(str(self.crash.path))}")]

    def ending(self) -> list[Evidence]:
        """Return how it ended, where the event did not end it."""
        event, closing, panic = self.crash.event, self.crash.closing, self.crash.panic
        if not self.crash.ended_later or panic is None or event is None:
            return []
        if closing and closing.seconds is not None and event.seconds is not None:
            after = f"{human_seconds(closing.seconds - event.seconds)} later: {closing.text}"
        else:
            after = in_a_line(panic.stack.frames[:6])
        return [Evidence("the kernel went on, and ended", after, self.command("bt"))]

    def stack(self, what: str = "the stack", frames: Sequence[Frame] = (), cpu: Cpu | None = None) -> list[Evidence]:
        """Return a stack in a line; the one that crashed, from the fault on, where none is given.

        Args:
            what: what it is the stack of, in words.
            frames: innermost first.
            cpu: the CPU that it is of, if not of the one that panicked.
        """
        frames = frames or (self.crash.below_fault if self.crash.faulted else self.crash.below_panic)
        end = next((number for number, frame in enumerate(frames) if frame == self.crash.own_frame), 0)
        runs = groupby(_named(frame) for frame in frames if frame.symbol and not frame.user)
        counted = [(name, len(list(times))) for name, times in runs]
        names = [f"{name} ({times} times)" if times > 1 else name for name, times in counted[: max(6, end + 3)]]
        command = self.command("bt" if cpu is None or cpu.panicked else f"bt -c {cpu.number}")
        return [Evidence(what, " ← ".join(names), command)] if names else []

    def instruction(self) -> list[Evidence]:
        """Return the faulting instruction, its operand, and where the pointer came from."""
        instruction, fault, operand = self.crash.instruction, self.crash.fault, self.crash.operand
        found = []
        if instruction and fault and fault.symbol:
            detail = instruction.text
            if operand and operand.base and operand.base_value is not None:
                detail += f"   with {operand.base} = {operand.base_value:#x}"
                if operand.index and operand.index_value is not None:
                    detail += f", {operand.index} = {operand.index_value:#x}"
            elif self.crash.divisor:
                detail += f"   with {self.crash.divisor[0]} = {self.crash.divisor[1]:#x}"
            found.append(Evidence("the faulting instruction", detail,
                                  self.command(f"dis -r {fault.symbol}+{fault.offset}")))
        return found + self._origin()

    def call(self) -> list[Evidence]:
        """Return the call that led nowhere, and where its target came from."""
        call, register = self.crash.call, self.crash.call_register
        if call is None:
            return []
        caller = self.crash.below_fault[1]
        value = self.crash.registers.get(register or "")
        detail = f"{call.text} in {caller}" if register is None else \
            f"{caller.function} called through the register {register}" \
            + (f" = {value:#x}" if value is not None else "")
        # The frame that faulted has the registers.
        found = [Evidence("the call", detail, self.command(f"dis -r {caller.symbol}+{caller.offset}", "bt"))]
        return found + self._origin()

    def _origin(self) -> list[Evidence]:
        """Return where the bad pointer came from, what it was to reach, and who allocated and freed its holder."""
        reader = self.crash.reader
        if reader is None:
            return []
        found, source = [], reader.source
        index = reader.index
        if index is not None and self.crash.indexed is not None:
            found.append(Evidence("the index in the source", f"{index.text}, which was {self.crash.indexed.words}",
                                  self.command(f"dis {index.function}") if index.function else ""))
        if source.named is not None:
            text = f"what {source.named.text} returned" if source.named.text.endswith("()") else source.named.text
            words = f"{text} in {source.named.function}()" if source.named.function else text
            made = f", of type {source.named.type.type_name()}" if source.named.type is not None else ""
            found.append(Evidence("the pointer in the source" if source.named.is_source else
                                  "where the pointer was read", words + made, self._dis(source.named.function)))
        if reader.root == 0 and reader.root_named is not None:
            root = reader.root_named
            found.append(Evidence("what was NULL", f"{root.text} in {root.function}()" if root.function else root.text,
                                  self._dis(root.function)))
        if source.place is not None:
            place = source.place
            reached = f"offset {place.offset:#x} is {place.structure}.{place.member}"
            found.append(Evidence("what it was to reach", reached, self.command(place.structure)))
        if source.loaded_by and source.loaded_from is not None:
            holder = reader.holder
            where = f"{source.loaded_from:#x}" + (f", {holder.words}" if holder and holder.kind != "unknown" else "")
            still = {True: ", which still holds that value", False: ", which holds another value now", None: ""}
            found.append(Evidence("where the pointer came from",
                                  f"`{source.loaded_by}` loaded it from {where}{still[source.still_there]}",
                                  self.command(f"rd {source.loaded_from:x}", *_belongs(holder))))
            found += self._tracks(holder) if holder else []
        return found

    def _dis(self, function: str | None) -> str:
        code = self.code(function or "")
        return self.command(f"dis {code}") if code else ""

    def code(self, function: str) -> str:
        """Return the symbol whose code a function is in: with the compiler's suffix, or the one it was inlined into."""
        symbol = next((frame.symbol for frame in self.crash.stack if frame.symbol and frame.function == function), None)
        if symbol or not function or self.crash.kernel is None:
            return symbol or function
        try:
            return str(self.crash.kernel.prog.symbol(function).name)
        except LookupError:
            return (self.crash.fault.symbol if self.crash.fault else None) or ""

    def object(self, what: str, place: Pointee) -> list[Evidence]:
        """Return what an address points at, and who allocated and freed that."""
        shown = self.command(f"kmem -s {place.address:x}", f"rd {place.address:x} 8")
        return [Evidence(what, place.words, shown), *self._tracks(place)]

    def checked(self, place: Pointee | None) -> list[Evidence]:
        """Return what a check of the kernel was called with, where that is known."""
        if place is None or place.kind == "unknown":
            return []
        if place.kind == "slab":
            return self.object("the object that was checked", place)
        return [Evidence("what was checked", f"{place.address:#x}, {place.words}",
                         self.command(f"rd {place.address:x}"))]

    def _tracks(self, place: Pointee) -> list[Evidence]:
        return [Evidence(f"who {track.event} that object",
                         f"process {track.pid} on CPU {track.cpu}: {' ← '.join(track.trace[:8])}",
                         self.command(f"struct track {track.address:x}", self.of_track(track.address)))
                for track in place.tracks]

    def of_track(self, address: int) -> str:
        """Return the shell's line for the stack that a `struct track` of the slab allocator kept."""
        prog = self.crash.kernel.prog if self.crash.kernel else None
        # 5cf909c553e9 "mm/slub: use stackdepot to save stack trace in objects" (5.19): before, it is in the track.
        if prog is not None and prog.type("struct track").has_member("handle"):
            return f'py stack_depot_fetch(Object(prog, "struct track", address={address:#x}).handle)'
        return f"rd -s {address:x} 17"

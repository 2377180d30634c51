"""Ways out of a function on which it does not give back what it has taken: a return before the unlock.

Who left a lock locked is on no stack any more. The code of the module that uses the lock still has the way: from the
call that takes the lock to a return, past no call that gives it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import drgn

from kdumpy.debuginfo.modules import text_of
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.diagnosis import operands
from kdumpy.diagnosis.crashed.following import Follower, Function
from kdumpy.diagnosis.crashed.held import Family, Held, ways_out
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Value, apart
from kdumpy.kernel import Kernel
from kdumpy.kernel.values import Frame

_MOST_CALLERS = 3
"""Functions upwards in which it is looked for what an argument is."""
_MOST_CALLS = 8
"""Calls of one function that are looked at."""
_WORD = 1 << 64
LARGEST_TEXT = 1 << 17
"""Bytes of a module's code that are gone through; a larger module's is not."""


class WayOut(NamedTuple):
    """A function that can return with what it has taken."""

    frame: Frame
    gives: bool
    """On other ways it gives it back: it is no function that takes a lock for its caller."""
    direct: bool
    """It takes it itself, and not by way of a helper that only takes it."""
    locks: frozenset[int]
    """The locks that it takes there, as far as its code and that of its callers name them by a variable."""


class WaysOut:
    """Finds such functions in one kernel's modules."""

    def __init__(self, kernel: Kernel, held: Held, read: operands.Read) -> None:
        self.kernel = kernel
        self.held = held
        self._read = read
        self._functions: dict[str, tuple[Function, ...]] = {}
        self._calls: dict[str, dict[int, list[tuple[Function, int]]]] = {}

    def of(self, module: str, family: Family, lock: int = 0, place: int | None = None) -> list[WayOut]:
        """Return the functions of a module that can return with a lock, those first that give it back elsewhere.

        Args:
            module: its name.
            family: the kind of lock.
            lock: its address, where it is known; a call that takes another one does not count.
            place: bytes from the begin of the object that the lock lies in, where a caller's code tells.
        """
        found = []
        for function in self.functions(module):
            code = self.held.code_of(function)
            gives = self.held.gives(function, family)
            for call, value in self.held.takes(function, family):
                back = {at for at, given in gives if given is None or value is None
                        or given == value or place_of(given) == place_of(value)}
                if _differs(value, lock, place) or not ways_out(code.lines, call, back) \
                        or self._for_callers(module, function, family):
                    continue
                frame = Frame(function.begin, function.symbol, None, module)
                found.append(WayOut(frame, any(ways_out(code.lines, call, set(), upto=at) for at in back),
                                    family.takes(code.calls[call]), frozenset(self._numbers(module, function, value))))
                break
        return sorted(found, key=lambda item: not item.gives)

    def calls(self, module: str) -> Iterator[tuple[Function, int, str]]:
        """Yield (function, address of a call in it, the name of what is called) of a module's code."""
        for function in self.functions(module):
            for at, name in self.held.code_of(function).calls.items():
                yield function, at, name

    def passed(self, module: str, function: Function, call: int) -> frozenset[int]:
        """Return what a function can pass as the first argument at a call, as far as variables tell."""
        return frozenset(self._numbers(module, function, self.argument(function, call)))

    def _numbers(self, module: str, function: Function, value: Value | None,
                 depth: int = _MOST_CALLERS) -> Iterator[int]:
        """Yield what a value can be: of an argument, what the functions of the module that call this one pass."""
        base, offset = apart(value) if value is not None else (None, 0)
        if isinstance(base, Constant):
            yield (base.number + offset) % _WORD
        elif isinstance(base, Loaded) and base.size == 8 and not base.scale:
            for place in self._numbers(module, function, base.base, depth):
                with contextlib.suppress(LookupError, ValueError):
                    held = int.from_bytes(self._read((place + base.offset) % _WORD, 8), "little")
                    yield (held + offset) % _WORD
        elif isinstance(base, Argument) and depth:
            for caller, at in self._callers(module).get(function.begin, ())[:_MOST_CALLS]:
                passed = self.held.values_at(Follower(self.kernel, self._read, (), at, {})).get(base.register)
                for number in self._numbers(module, caller, passed, depth - 1):
                    yield (number + offset) % _WORD

    def _for_callers(self, module: str, function: Function, family: Family) -> bool:
        """Tell whether a function's callers give back what it returns with: it begins what another one ends."""
        return any(ways_out(self.held.code_of(caller).lines, at, set(), upto=give)
                   for caller, at in self._callers(module).get(function.begin, ())[:_MOST_CALLS]
                   for give, _ in self.held.gives(caller, family) if give != at)

    def _callers(self, module: str) -> dict[int, list[tuple[Function, int]]]:
        """Return (function, address of the call) of the calls within a module, by the begin of what is called."""
        if module not in self._calls:
            found: dict[int, list[tuple[Function, int]]] = {}
            for caller in self.functions(module):
                for at, item in self.held.code_of(caller).lines.items():
                    if item.target is not None and not caller.begin <= item.target < caller.end:
                        found.setdefault(item.target, []).append((caller, at))
            self._calls[module] = found
        return self._calls[module]

    def twice(self, module: str, family: Family, lock: int = 0, place: int | None = None) -> list[Frame]:
        """Return the functions of a module that can give something back twice for having taken it once.

        Args:
            module: its name.
            family: the kind of lock.
            lock: its address, and
            place: where it lies in its object, as for `of`.
        """
        found = []
        for function in self.functions(module):
            code = self.held.code_of(function)
            takes = {at for at, _ in self.held.takes(function, family)}
            gives = [(at, value) for at, value in self.held.gives(function, family)
                     if not _differs(value, lock, place)] if takes else []
            if any(ways_out(code.lines, first, takes, upto=second) for first, one in gives for second, other in gives
                   if one is None or other is None or one == other or place_of(one) == place_of(other)):
                found.append(Frame(function.begin, function.symbol, None, module))
        return found

    def functions(self, module: str) -> tuple[Function, ...]:
        """Return the functions of a module; none where they cannot be read, or are too many."""
        if module not in self._functions:
            self._functions[module] = tuple(self._read_functions(module))
        return self._functions[module]

    def _read_functions(self, module: str) -> Iterator[Function]:
        symbols = self.kernel.debuginfo.module_symbols
        try:
            ranges = text_of(symbols.module_named(module)) if symbols else []
            if not symbols or sum(end - begin for begin, end in ranges) > LARGEST_TEXT:
                return
            for symbol in symbols.of_module(module):
                if symbol.kind == drgn.SymbolKind.FUNC and any(begin <= symbol.address < end for begin, end in ranges) \
                        and not symbol.name.startswith("__pfx_") and ".cold" not in symbol.name:
                    yield Function(symbol.name, symbol.address, symbol.address + symbol.size, {})
        except READ_ERRORS:
            return

    def argument(self, function: Function, call: int) -> Value | None:
        """Return what a function passes as the first argument at a call."""
        return self.held.values_at(Follower(self.kernel, self._read, (), call, {})).get("rdi")


def place_of(value: Value | None) -> int | None:
    """Return how far behind the begin of an object a value points; None where that is not known."""
    if value is None:
        return None
    base, offset = apart(value)
    return None if isinstance(base, Constant) else offset


def _differs(value: Value | None, lock: int, place: int | None) -> bool:
    """Tell whether a call surely takes another lock than the one meant."""
    if value is None:
        return False
    base, _ = apart(value)
    if isinstance(base, Constant):
        return bool(lock) and base.number != lock
    own = place_of(value)
    return place is not None and own is not None and not isinstance(value, Loaded) and own != place

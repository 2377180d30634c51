"""`sym`: symbols and their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import drgn

from kdumpy.crash.command import Arg, Command, Options
from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError


@dataclass(frozen=True)
class SymbolRow:
    """A symbol, and how far beyond its begin an address lies."""

    address: int
    kind: str
    """T a function, D data, ? unknown; a small letter for a static one; empty where a module begins or ends."""
    name: str
    offset: int
    """Bytes from the symbol's begin to the address."""
    module: str | None
    source: str | None
    """file:line, where DWARF is at hand."""


class Sym(Command[SymbolRow]):
    """Turn a symbol into its address, and an address into its symbol.

    Example:
        crash> sym schedule
        ffffffffaa4114f0 (T) schedule
    """

    names = ("sym",)
    example = "sym schedule"
    row = SymbolRow
    args = (
        Arg("which", nargs="*", metavar="SYMBOL|ADDRESS", help="symbols, or addresses in hexadecimal"),
        Arg("-l", dest="every", action="store_true", help="all symbols, by address"),
        Arg("-m", dest="module", metavar="MODULE", help="the symbols of a module"),
        Arg("-M", dest="modules", action="store_true", help="the symbols of all modules"),
        Arg("-p", dest="before", action="store_true", help="the symbol before it too"),
        Arg("-n", dest="after", action="store_true", help="the symbol after it too"),
        Arg("-q", dest="query", metavar="TEXT", help="the symbols that hold this text"),
    )

    def rows(self, session: Session, options: Options) -> Iterator[SymbolRow]:
        """Yield the symbols."""
        if options.every or options.module or options.modules or options.query:
            yield from self._many(session, options)
            return
        if not options.which:
            raise UsageError("which symbol?", where="sym", mend="see 'help sym'")
        for text in options.which:
            for symbol, address in self._named(session, text):
                if options.before:
                    yield from self._neighbour(session, symbol.address - 1)
                yield symbol_row(session, symbol, address)
                if options.after:
                    # A vmlinux has the size of the code, kallsyms the room up to the next symbol.
                    end = max(one.address + one.size for one in (symbol, *session.prog.symbols(symbol.address)))
                    yield from self._neighbour(session, max(end, symbol.address + 1))

    @staticmethod
    def _named(session: Session, text: str) -> Iterator[tuple[drgn.Symbol, int]]:
        same = _once(session.prog.symbols(text))
        if same:
            for symbol in same:
                yield symbol, symbol.address
            return
        address = session.address(text)
        found = session.symbol(address)
        if found is None:
            raise NotInDump(f"no symbol holds the address {address:016x}")
        yield found, address

    @staticmethod
    def _neighbour(session: Session, address: int) -> Iterator[SymbolRow]:
        symbol = session.symbol(address)
        if symbol is not None:
            yield symbol_row(session, symbol, symbol.address)

    @staticmethod
    def _many(session: Session, options: Options) -> Iterator[SymbolRow]:
        wanted = options.module
        if wanted and all(module.name != wanted for module in session.kernel.modules):
            raise NotInDump(f"no module {wanted!r} was loaded")
        inside: str | None = None
        for symbol in _once(session.prog.symbols()):
            if options.query and options.query not in symbol.name:
                continue
            module = session.module(symbol.address)
            if (wanted and module != wanted) or (options.modules and not module):
                continue
            if (wanted or options.modules) and module != inside:
                yield from _edges(session, inside, module)
                inside = module
            yield symbol_row(session, symbol, symbol.address, module)
        yield from _edges(session, inside, None)

    def render(self, rows: Iterable[SymbolRow], session: Session, options: Options) -> Iterator[str]:
        """Lay the symbols out as crash does."""
        for row in rows:
            offset = "" if not row.offset else f"+{row.offset:#x}" if session.radix == 16 else f"+{row.offset}"
            module = f" [{row.module}]" if row.module else ""
            source = f" {row.source.replace(':', ': ')}" if row.source else ""
            if not row.kind:
                yield f"{row.address:016x} {row.name}"
                continue
            yield f"{row.address:016x} ({row.kind}) {row.name}{offset}{module}{source}"


def _once(symbols: Iterable[drgn.Symbol]) -> list[drgn.Symbol]:
    """Return symbols by address, each once: a vmlinux has most of those that kallsyms has, and knows more of them.

    drgn asks the vmlinux first.
    """
    found: dict[tuple[int, str], drgn.Symbol] = {}
    for symbol in symbols:
        found.setdefault((symbol.address, symbol.name), symbol)
    return [found[key] for key in sorted(found)]


def _edges(session: Session, left: str | None, entered: str | None) -> Iterator[SymbolRow]:
    """Yield where a module ends and the next one begins, as crash does.

    Since Linux 6.4 the parts of a module lie apart (ac3b43283923, "module: replace module_layout with module_memory"):
    the end is told where it is one.
    """
    modules = {module.name: module for module in session.kernel.modules if module.base}
    if left in modules:
        end = modules[left].base + modules[left].size
        if session.module(end - 1) == left:
            yield SymbolRow(end, "", f"MODULE END: {left}", 0, left, None)
    if entered in modules:
        yield SymbolRow(modules[entered].base, "", f"MODULE START: {entered}", 0, entered, None)


def kind_of(symbol: drgn.Symbol) -> str:
    """Return the letter of nm for a symbol."""
    letter = {drgn.SymbolKind.FUNC: "T", drgn.SymbolKind.OBJECT: "D"}.get(symbol.kind, "?")
    return letter.lower() if symbol.binding == drgn.SymbolBinding.LOCAL else letter


def symbol_row(session: Session, symbol: drgn.Symbol, address: int, module: str | None = None) -> SymbolRow:
    """Tell where in a symbol an address lies."""
    source = None
    if session.kernel.debuginfo.dwarf and symbol.kind == drgn.SymbolKind.FUNC:
        try:
            place = session.prog.source_location(address)[0]
            source = f"{place.filename}:{place.line}"
        except LookupError:
            pass
    return SymbolRow(address, kind_of(symbol), symbol.name, address - symbol.address,
                     module or session.module(symbol.address), source)


COMMAND = Sym()

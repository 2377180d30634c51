"""C expressions over the dump's variables: `init_task.comm`, `*(struct page *)0xff…`, `&slab_caches`, `jiffies + 1`.

A parser of its own, small and without evaluation of anything else: what is typed is never run as Python.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import drgn

from kdumpy.crash.session import Session
from kdumpy.errors import NotInDump, UsageError

_TOKEN = re.compile(r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)(?P<suffix>[uUlL]*)|"
                    r"(?P<name>\$?[A-Za-z_]\w*|\$\$?\d{0,9})"
                    r"|(?P<char>'(?:\\.|[^\\'])')"
                    r"|(?P<sign>->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>().\[\]@]))")

_BINARY: dict[str, tuple[int, Callable[[drgn.Object, drgn.Object], object]]] = {
    "||": (1, lambda a, b: bool(a) or bool(b)), "&&": (2, lambda a, b: bool(a) and bool(b)),
    "|": (3, operator.or_), "^": (4, operator.xor), "&": (5, operator.and_),
    "==": (6, operator.eq), "!=": (6, operator.ne),
    "<": (7, operator.lt), ">": (7, operator.gt), "<=": (7, operator.le), ">=": (7, operator.ge),
    "<<": (8, operator.lshift), ">>": (8, operator.rshift),
    "@": (9, lambda a, b: _several(a, b)),
    "+": (10, operator.add), "-": (10, operator.sub),
    "*": (11, operator.mul), "/": (11, operator.truediv), "%": (11, operator.mod),
}  # fmt: skip
"""Precedence and meaning of the operators of C, and of gdb's `VALUE@COUNT`."""
_TYPE_WORDS = {"struct", "union", "enum", "unsigned", "signed", "const", "volatile", "int", "long", "short", "char",
               "void", "_Bool", "bool", "float", "double"}
_DEEPEST = 50
_MOST_ELEMENTS = 1 << 20
"""Of an array that is asked for with `@`."""


def evaluate(session: Session, text: str) -> drgn.Object:
    """Return the value of an expression.

    Raises:
        UsageError: it is none.
        NotInDump: a name in it is not known.
        drgn.FaultError: what it needs is not in the dump.
    """
    return _Parser(session, text).whole()


def address_of(value: drgn.Object) -> int:
    """Return what crash's users mean by an expression where an address is wanted: a structure's, array's or function's
    place, or the value of a number or pointer.

    Raises:
        TypeError: it has no place.
    """
    made = value.type_
    while made.kind == drgn.TypeKind.TYPEDEF:
        made = made.type
    if made.kind in (drgn.TypeKind.ARRAY, drgn.TypeKind.FUNCTION, drgn.TypeKind.STRUCT, drgn.TypeKind.UNION):
        if value.address_ is None:
            raise TypeError("a value without a place")
        return int(value.address_)
    return int(value.value_()) & (1 << 64) - 1


def _several(first: drgn.Object, count: drgn.Object) -> drgn.Object:
    """Return the array of `count` elements that begins with a value in memory: gdb's `first@count`.

    Raises:
        TypeError: there is none.
    """
    if first.address_ is None or first.bit_field_size_ is not None:
        raise TypeError("what stands before '@' has no place in memory")
    number = count.value_()
    if not isinstance(number, int) or not 0 < number <= _MOST_ELEMENTS:
        raise TypeError(f"behind '@' stands a number from 1 to {_MOST_ELEMENTS}")
    prog = first.prog_
    return drgn.Object(prog, prog.array_type(first.type_, number), address=first.address_)


class _Parser:
    def __init__(self, session: Session, text: str) -> None:
        self.session = session
        self.prog = session.prog
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if not match:
                raise UsageError(f"{text[position:].strip()[:20]!r} does not belong into an expression")
            kind = str(match.lastgroup if match.lastgroup != "suffix" else "number")
            self.tokens.append((kind, match[kind]))
            position = match.end()
        self.at = 0
        self.depth = 0

    def whole(self) -> drgn.Object:
        value = self.binary(0)
        if self.at < len(self.tokens):
            raise UsageError(f"{self.tokens[self.at][1]!r} was not expected", where=self.text)
        return value

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ("end", "")

    def take(self, wanted: str | None = None) -> tuple[str, str]:
        token = self.peek()
        if token[0] == "end" or (wanted is not None and token[1] != wanted):
            raise UsageError(f"{wanted or 'more'!r} was expected", where=self.text)
        self.at += 1
        return token

    def binary(self, least: int) -> drgn.Object:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise UsageError("the expression goes too deep")
        left = self.unary()
        while True:
            kind, sign = self.peek()
            if kind != "sign" or sign not in _BINARY or _BINARY[sign][0] < least:
                self.depth -= 1
                return left
            self.take()
            right = self.binary(_BINARY[sign][0] + 1)
            if sign in "/%" and right.value_() == 0:
                raise UsageError("a division by zero", where=self.text)
            try:
                made = _BINARY[sign][1](left, right)
            except TypeError as error:
                raise UsageError(str(error), where=self.text) from None
            left = made if isinstance(made, drgn.Object) else drgn.Object(self.prog, "int", value=int(bool(made)))

    def unary(self) -> drgn.Object:
        kind, sign = self.peek()
        if kind == "sign" and sign in ("*", "&", "-", "~", "!", "+"):
            self.take()
            self.depth += 1
            if self.depth > _DEEPEST:
                raise UsageError("the expression goes too deep")
            value = self.unary()
            self.depth -= 1
            try:
                if sign == "*":
                    return value[0]
                if sign == "&":
                    return value.address_of_()
                if sign == "!":
                    return drgn.Object(self.prog, "int", value=int(not value))
                return -value if sign == "-" else ~value if sign == "~" else +value
            except (TypeError, ValueError) as error:
                raise UsageError(str(error), where=self.text) from None
        if kind == "sign" and sign == "(" and self.is_type(1):
            self.take()
            made = self.type_name()
            self.take(")")
            return drgn.cast(made, self.unary())
        return self.postfix(self.primary())

    def is_type(self, ahead: int) -> bool:
        """Whether a type's name stands here: a word of C, or a typedef followed by `*` or `)`."""
        kind, name = self.peek(ahead)
        if kind != "name":
            return False
        if name in _TYPE_WORDS:
            return True
        if self.peek(ahead + 1)[1] not in ("*", ")") or self.session.prog.symbols(name):
            return False
        try:
            self.prog.type(name)
        except (LookupError, SyntaxError):
            return False
        return True

    def type_name(self) -> drgn.Type:
        words = []
        while self.peek()[0] == "name" or self.peek()[1] == "*":
            words.append(self.take()[1])
        try:
            return self.prog.type(" ".join(words))
        except LookupError:
            raise NotInDump(f"there is no type {' '.join(words)!r}") from None
        except SyntaxError as error:
            raise UsageError(str(error), where=self.text) from None

    def primary(self) -> drgn.Object:
        kind, text = self.take()
        if kind == "number":
            number = int(text, 0) if text[:2].lower() == "0x" else int(text)
            return drgn.Object(self.prog, "unsigned long" if number >> 31 else "int", value=number)
        if kind == "char":
            return drgn.Object(self.prog, "char", value=ord(text[1:-1].encode().decode("unicode_escape")))
        if kind == "name":
            if text == "sizeof":
                return self.size_of()
            return self.session.value(text) if text.startswith("$") else self.variable(text)
        if text == "(":
            value = self.binary(0)
            self.take(")")
            return value
        raise UsageError(f"{text!r} was not expected", where=self.text)

    def size_of(self) -> drgn.Object:
        self.take("(")
        made = self.type_name() if self.is_type(0) else self.binary(0).type_
        self.take(")")
        return drgn.Object(self.prog, "unsigned long", value=drgn.sizeof(made))

    def variable(self, name: str) -> drgn.Object:
        try:
            return self._placed(name, self.prog[name])
        except LookupError:
            pass
        try:
            symbol = self.prog.symbol(name)
        except LookupError:
            raise NotInDump(f"there is no variable, function or constant {name!r}") from None
        raise NotInDump(f"the type of {name!r} is not known", where=f"address {symbol.address:016x}",
                        why="the kernel's own type information leaves most variables out",
                        mend=f"cast it: *(TYPE *)0x{symbol.address:x}, or pass a vmlinux")

    def _placed(self, name: str, found: drgn.Object) -> drgn.Object:
        """Return a function or variable where the kernel has it.

        drgn takes any of DWARF's entries of a name: a declaration and an inlined copy have no place, and a weak
        function that the linker left out has that of another one. The table of symbols knows which one was linked.

        Raises:
            NotInDump: it has no place.
        """
        if not found.absent_ and found.type_.kind != drgn.TypeKind.FUNCTION:
            return found
        places = [symbol.address for symbol in self.prog.symbols(name)]
        if not found.absent_ and found.address_ and (found.address_ in places or not places):
            return found
        if not places:
            raise NotInDump(f"{name!r} has no place in memory", why="it was inlined everywhere, or left out")
        return drgn.Object(self.prog, found.type_, address=places[0])

    def postfix(self, value: drgn.Object) -> drgn.Object:
        while True:
            sign = self.peek()[1]
            if sign in (".", "->") and self.peek()[0] == "sign":
                self.take()
                kind, name = self.take()
                if kind != "name":
                    raise UsageError(f"{name!r} is no member", where=self.text)
                try:
                    value = value.member_(name)
                except LookupError as error:
                    raise NotInDump(str(error.args[0])) from None
                except TypeError as error:
                    raise UsageError(str(error), where=self.text) from None
            elif sign == "[" and self.peek()[0] == "sign":
                self.take()
                index = self.binary(0)
                self.take("]")
                try:
                    value = value[index]
                except TypeError as error:
                    raise UsageError(str(error), where=self.text) from None
            else:
                return value

"""Global variables, functions and constants as drgn objects: address from kallsyms, type from BTF."""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Iterator

import drgn
from drgn import FindObjectFlags

from kdumpy.debuginfo.kallsyms import KernelSymbols
from kdumpy.debuginfo.reading import READ_ERRORS
from kdumpy.debuginfo.text import Text
from kdumpy.debuginfo.types import BtfTypes
from kdumpy.debuginfo.variables import DECLARATIONS
from kdumpy.errors import DamagedDump

_LARGEST_STACK = 1 << 20
_LENGTH = re.compile(r"\[([A-Z_]+)\]$")


class Objects:
    """A drgn object finder over kallsyms and BTF; answers are kept, misses too."""

    def __init__(self, prog: drgn.Program, types: BtfTypes | None, symbols: KernelSymbols, text: Text) -> None:
        self.prog = prog
        self.types = types
        self.symbols = symbols
        self.text = text
        self.kernel_types_only = False
        """While True, a type that the kernel lacks is not to be looked for in its modules."""
        self._known: dict[tuple[str, int], drgn.Object | None] = {}

    def __call__(self, prog: drgn.Program, name: str, flags: FindObjectFlags,
                 filename: str | None) -> drgn.Object | None:
        """Find an object by name: drgn's protocol of object finders."""
        if filename is not None:            # neither kallsyms nor BTF knows files
            return None
        key = (name, flags.value)
        if key not in self._known:
            # Set first: the type of a variable is found through the program, which asks here again.
            self._known[key] = None
            with contextlib.suppress(DamagedDump):      # a type that BTF describes wrongly is as good as none
                self._known[key] = self._find(name, flags)
        return self._known[key]

    def forget(self) -> None:
        """Drop the answers, after symbols or types were added."""
        self._known.clear()

    def _find(self, name: str, flags: FindObjectFlags) -> drgn.Object | None:
        if flags & FindObjectFlags.CONSTANT and self.types:
            constant = self.types.enumerator(name)
            if constant is not None:
                return constant
            if name == "THREAD_SIZE":
                return self._thread_size()
        if flags & FindObjectFlags.VARIABLE:
            variable = self._variable(name)
            if variable is not None:
                return variable
        if flags & FindObjectFlags.FUNCTION:
            return self._function(name)
        return None

    def _symbol(self, name: str) -> drgn.Symbol | None:
        """Return the kernel's own symbol: a module's of the same name is another thing."""
        found = self.symbols(self.prog, name, None, True)
        return found[0] if found else None

    def _variable(self, name: str) -> drgn.Object | None:
        percpu = self.types.percpu(name) if self.types else None
        declared = DECLARATIONS.get(name)
        if percpu is None and declared is None:
            return None
        symbol = self._symbol(name)
        if symbol is None:
            return None
        if percpu is not None:
            return drgn.Object(self.prog, percpu, address=symbol.address)
        fitting = [made for made in map(self.declared_type, declared or ()) if made and self._fits(made, symbol)]
        lengths = all(made.kind == drgn.TypeKind.ARRAY for made in fitting)
        for made in fitting:
            # Where several lengths fit, one that is too long takes in the padding behind the array, which is zero.
            if not lengths or made is fitting[-1] or not self._ends_in_zeros(made, symbol.address):
                return drgn.Object(self.prog, made, address=symbol.address)
        return None

    def _ends_in_zeros(self, made: drgn.Type, address: int) -> bool:
        """Whether the last element of an array is zero; False for another type, and where it is not in the dump."""
        if made.kind != drgn.TypeKind.ARRAY or not made.length:
            return False
        size = drgn.sizeof(made.type)
        try:
            return not any(self.prog.read(address + size * (made.length - 1), size))
        except drgn.FaultError:
            return False

    @staticmethod
    def _fits(made: drgn.Type, symbol: drgn.Symbol) -> bool:
        """Whether a variable of this type can lie between the symbol and the next one.

        kallsyms has no sizes; drgn gives a symbol the room up to the next one, and none (0) where
        that is more than 64 KiB or another symbol has the same address.
        """
        if not made.is_complete() or symbol.size == 0:
            return True
        return bool(drgn.sizeof(made) <= symbol.size)

    def declared_type(self, declaration: str) -> drgn.Type | None:
        """Return the type of a declaration of `variables.py`, or None where the kernel lacks it."""
        with self._kernel_types(), contextlib.suppress(LookupError):
            declaration, _, condition = declaration.partition(" if ")
            if condition and not self._has_member(condition):
                return None
            if declaration.startswith("{"):
                return self._anonymous(tuple(declaration.strip("{}").split(", ")))
            length = _LENGTH.search(declaration)
            if length:
                count = self.types.enumerator(length[1]) if self.types else None
                if count is None:
                    return None
                declaration = declaration[: length.start()] + f"[{count.value_()}]"
            return self.prog.type(declaration)
        return None

    @contextlib.contextmanager
    def _kernel_types(self) -> Iterator[None]:
        """The types of the kernel's own variables are its own: modules are not asked meanwhile."""
        before, self.kernel_types_only = self.kernel_types_only, True
        try:
            yield
        finally:
            self.kernel_types_only = before

    def _has_member(self, condition: str) -> bool:
        """Whether a kernel's type has a member: `struct file_system_type.list`."""
        name, _, member = condition.partition(".")
        return bool(self.prog.type(name).has_member(member))

    def _anonymous(self, members: tuple[str, ...]) -> drgn.Type | None:
        """Return the anonymous struct that has exactly these members."""
        type_id = self.anonymous_id(members)
        return self.types.type(self.types.btf, type_id) if self.types and type_id is not None else None

    def anonymous_id(self, members: tuple[str, ...]) -> int | None:
        """Return the kernel's type id of the anonymous struct that has exactly these members."""
        if self.types is None:
            return None
        blob = self.types.btf
        for type_id in array("I", blob.index.nameless):
            record = blob.type(type_id)
            if record.vlen == len(members) and tuple(member.name for member in blob.members(record)) == members:
                return type_id
        return None

    def _thread_size(self) -> drgn.Object | None:
        """Return the size of a kernel stack where the kernel has no type of that size (union thread_union on arm64).

        Source: kernel/fork.c, alloc_thread_stack_node(): a stack is an area of vmalloc (CONFIG_VMAP_STACK), of whose
        pages there is one more in its size: the guard page.
        """
        with contextlib.suppress(*READ_ERRORS):
            task = self.prog["init_task"].tasks.next.value_() - drgn.offsetof(self.prog.type("struct task_struct"),
                                                                            "tasks")
            area = drgn.Object(self.prog, "struct task_struct", address=task).stack_vm_area
            size = area.nr_pages.value_() * int(self.prog["PAGE_SIZE"])
            if 0 < size <= _LARGEST_STACK and size & size - 1 == 0:
                return drgn.Object(self.prog, self.prog.int_type("unsigned long", 8, False), value=size)
        return None

    def _function(self, name: str) -> drgn.Object | None:
        symbol = self._symbol(name)
        if symbol is None or symbol.address not in self.text:
            return None
        made = self.types.function(name) if self.types else None
        if made is None:
            # BTF leaves some functions out; drgn's helpers ask whether they exist (vmemmap_populate).
            made = self.prog.function_type(self.prog.void_type(), (), True)
        return drgn.Object(self.prog, made, address=symbol.address)

"""Kernel modules: which files a set of names needs, in the order to insert them.

Source: modules.dep(5), and modules.alias, .builtin and .softdep as depmod(8) writes them.
"""

from __future__ import annotations

import fnmatch
import lzma
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kdumpy.errors import HostError


@dataclass(frozen=True)
class Closure:
    """The modules to insert."""

    files: tuple[Path, ...]
    """Module files, each after the ones it needs."""
    builtin: tuple[str, ...] = ()
    """Names asked for that are part of the kernel itself."""
    absent: tuple[str, ...] = field(default=())
    """Optional names (and soft dependencies) that this kernel does not have."""


class ModuleTree:
    """The modules of one kernel: a directory such as /lib/modules/6.1.0-56-cloud-amd64."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def closure(self, names: list[str], optional: list[str] | None = None) -> Closure:
        """Return the files that `names` (and those of `optional` that exist) need.

        Soft dependencies are followed where they exist: `pre` ones go before, `post` after.

        Raises:
            HostError: a name of `names` is neither a module, an alias nor built in.
        """
        order: dict[Path, None] = {}
        builtin: list[str] = []
        absent: list[str] = []
        for name in names:
            if not self._insert(name, order, builtin, set()):
                raise HostError("the kernel has no such module", where=str(self.directory),
                                why=module_name(name), mend="check the name, or run depmod")
        for name in optional or []:
            if not self._insert(name, order, builtin, set()):
                absent.append(module_name(name))
        return Closure(tuple(order), tuple(dict.fromkeys(builtin)), tuple(absent))

    def path(self, name: str) -> Path | None:
        """Return the file of a module by its name, or None."""
        found = self._paths.get(module_name(name))
        return self.directory / found if found else None

    def has(self, name: str) -> bool:
        """Tell whether a name is a module, an alias of one, or built in."""
        return self._insert(name, {}, [], set())

    def _insert(self, name: str, order: dict[Path, None], builtin: list[str], active: set[str]) -> bool:
        name = module_name(name)
        if name in active:
            return True            # soft dependencies may form circles
        relative = self._paths.get(name)
        if relative is None:
            # The order of kmod's kmod_module_new_from_lookup(): modules, aliases, built in.
            found = [self._insert(real, order, builtin, active | {name}) for real in self._aliased(name)]
            if not any(found) and name in self._builtin:
                builtin.append(name)
                return True
            return any(found)
        before, after = self._soft.get(name, ((), ()))
        for soft in before:
            self._insert(soft, order, builtin, active | {name})
        # modules.dep lists what is needed nearest first: the last one goes in first.
        for needed in reversed(self._needs[relative]):
            self._insert(module_name(Path(needed).name), order, builtin, active | {name})
        order.setdefault(self.directory / relative)
        for soft in after:
            self._insert(soft, order, builtin, active | {name})
        return True

    @cached_property
    def _needs(self) -> dict[str, list[str]]:
        needs = {}
        for line in self._lines("modules.dep", required=True):
            path, _, needed = line.partition(":")
            needs[path] = needed.split()
        return needs

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {module_name(Path(path).name): path for path in self._needs}

    def _aliased(self, name: str) -> list[str]:
        """Return the modules that an alias such as `crc32c` stands for."""
        return [real for pattern, real in self._aliases if fnmatch.fnmatchcase(name, pattern)]

    @cached_property
    def _aliases(self) -> list[tuple[str, str]]:
        lines = (line.split() for line in self._lines("modules.alias"))
        return [(words[1].replace("-", "_"), module_name(words[2])) for words in lines if len(words) == 3]

    @cached_property
    def _builtin(self) -> set[str]:
        return {module_name(Path(line).name) for line in self._lines("modules.builtin")}

    @cached_property
    def _soft(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return name → (pre, post) from lines `softdep NAME pre: A B post: C`."""
        found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        for line in self._lines("modules.softdep"):
            words = line.split()
            if len(words) < 3 or words[0] != "softdep":
                continue
            lists: dict[str, list[str]] = {"pre:": [], "post:": []}
            target = None
            for word in words[2:]:
                if word in lists:
                    target = lists[word]
                elif target is not None:
                    target.append(word)
            # A module may have several lines; libkmod obeys the first only, we all of them.
            before, after = found.get(module_name(words[1]), ((), ()))
            found[module_name(words[1])] = (*before, *lists["pre:"]), (*after, *lists["post:"])
        return found

    def _lines(self, name: str, required: bool = False) -> list[str]:
        path = self.directory / name
        try:
            text = path.read_text()
        except FileNotFoundError:
            if required:
                raise HostError("no list of the kernel's modules", where=str(path),
                                why="the file is missing", mend="run depmod") from None
            return []
        return [line for line in text.splitlines() if line and not line.startswith("#")]


def module_name(name: str) -> str:
    """Return the name as the kernel spells it: no directory, no suffix, `_` for `-`."""
    return Path(name).name.split(".ko")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """Return the ELF contents of a module file: .ko, .ko.xz, .ko.gz or .ko.zst."""
    return unpack(path.read_bytes(), path.suffix)


def unpack(data: bytes, suffix: str) -> bytes:
    """Return what was packed, by the suffix of a file's name: .xz, .gz, .zst; any other is not packed."""
    if suffix == ".xz":
        return lzma.decompress(data)
    if suffix == ".gz":
        # A kernel's image may be followed by other data, which gzip.decompress refuses.
        unpacking = zlib.decompressobj(wbits=31)
        plain = unpacking.decompress(data)
        if not unpacking.eof:
            raise EOFError("it is cut short")
        return plain
    if suffix == ".zst":
        import zstandard  # only kernels of some distributions need it

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data

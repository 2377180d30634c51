"""Build an initramfs: programs with their libraries, kernel modules, files; then compress it."""

from __future__ import annotations

import gzip
import io
import os
import shutil
from pathlib import Path
from typing import Literal, Self

from kdumpy.errors import HostError
from kdumpy.image import libraries, modules
from kdumpy.image.cpio import Archive

LOAD_ORDER = "lib/modules/load-order"
"""In the image: the modules' paths, one a line, in the order to insert them."""

Compression = Literal["zstd", "gzip", "none"]


class Initramfs:
    """An image in the making. Everything comes from the file system below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.archive = Archive()
        for directory in ("bin", "dev", "etc", "lib", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr"):
            self.archive.add_directory(directory, 0o1777 if directory == "tmp" else 0o755)
        # Before devtmpfs is mounted, init needs a console to complain on.
        self.archive.add_device("dev/console", "c", 5, 1)
        self.archive.add_device("dev/null", "c", 1, 3, 0o666)
        self._module_paths: list[str] = []

    def add_program(self, program: str, at: str | None = None) -> None:
        """Add a program (a name found on PATH, or a path) and the libraries it needs.

        Raises:
            HostError: the program or one of its libraries is not there.
        """
        source = self._find(program)
        self.archive.add_file(at or str(source), self._real(source), 0o755)
        for library in libraries.closure([source], self.root):
            self.archive.add_file(str(library), self._real(library), 0o755)

    def add_file(self, name: str, data: bytes | str | Path, mode: int = 0o644) -> None:
        """Add a file from bytes, text, or a file of this machine."""
        self.archive.add_file(name, data.encode() if isinstance(data, str) else data, mode)

    def add_modules(self, tree: modules.ModuleTree, names: list[str],
                    optional: list[str] | None = None) -> modules.Closure:
        """Add kernel modules with what they need, uncompressed, and remember the load order."""
        closure = tree.closure(names, optional)
        for path in closure.files:
            relative = path.relative_to(tree.directory)
            plain = str(relative).split(".ko")[0] + ".ko"
            self.add_module(f"lib/modules/{tree.directory.name}/{plain}", modules.read_module(path))
        return closure

    def add_module(self, name: str, data: bytes) -> None:
        """Add one module's ELF contents under a path of the image, last in the load order so far."""
        if name not in self._module_paths:
            self._module_paths.append(name)
        self.archive.add_file(name, data)

    @classmethod
    def empty(cls) -> Self:
        """Return an image without directories and devices: to be added to another one."""
        made = cls()
        made.archive = Archive()
        return made

    def unpacked(self) -> int:
        """Return the bytes of memory that the files take, in whole pages of 4096 bytes."""
        return sum(-(-entry.size() // 4096) * 4096 for entry in self.archive.entries())

    def pack(self, compression: Compression = "zstd") -> bytes:
        """Return the image, with the modules' load order in it; the same contents give the same bytes."""
        self.add_file(LOAD_ORDER, "".join(f"/{name}\n" for name in self._module_paths))
        return compressed(self.archive, compression)

    def write(self, path: Path, compression: Compression = "zstd") -> int:
        """Write the image and return its size in bytes."""
        data = self.pack(compression)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(data)
        partial.replace(path)
        return len(data)

    def _find(self, program: str) -> Path:
        if program.startswith("/"):
            found: str | None = program if self._real(Path(program)).is_file() else None
        elif self.root == Path("/"):
            # A user's PATH may lack the directories of system programs such as kexec.
            search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
            found = shutil.which(program, path=search)
        else:
            found = next((f"{directory}/{program}" for directory in ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
                          if self._real(Path(directory, program)).is_file()), None)
        if found is None:
            raise HostError("program not found", where=program, mend="install the package that holds it")
        return Path(found)

    def _real(self, path: Path) -> Path:
        """Return the file behind a path of the root, its links followed inside the root."""
        return _resolve(self.root, path)


def _resolve(root: Path, path: Path) -> Path:
    """Follow links as if `root` were the file system's root."""
    if root == Path("/"):
        return path.resolve()
    current = root / path.relative_to("/")
    for _ in range(40):
        if not current.is_symlink():
            return current
        target = current.readlink()
        current = root / target.relative_to("/") if target.is_absolute() else current.parent / target
    raise HostError("too many symbolic links", where=str(path))


def compressed(archive: Archive, compression: Compression) -> bytes:
    """Return an archive's bytes, compressed as a kernel takes them."""
    buffer = io.BytesIO()
    archive.write(buffer)
    data = buffer.getvalue()
    if compression == "zstd":
        import zstandard  # a dependency of the host side; kernels take zstd since 5.9

        return zstandard.ZstdCompressor(level=3).compress(data)
    if compression == "gzip":
        return gzip.compress(data, 6, mtime=0)
    return data

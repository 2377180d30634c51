from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from kdumpy.errors import HostError
from kdumpy.image import cpio, libraries
from kdumpy.image.initramfs import LOAD_ORDER, Initramfs
from kdumpy.image.modules import ModuleTree


def test_an_image_holds_program_libraries_and_modules_in_order(tmp_path: Path, installed_tree: ModuleTree) -> None:
    image = Initramfs()
    image.add_program("ls", at="bin/ls")
    closure = image.add_modules(installed_tree, ["virtio_blk"], ["no_such_module"])
    image.add_file("init", "#!/bin/sh\n", 0o755)
    path = tmp_path / "initrd"
    size = image.write(path)
    assert path.stat().st_size == size
    entries = {entry.name: entry for entry in cpio.read(zstandard.ZstdDecompressor().decompressobj()
                                                        .decompress(path.read_bytes()))}
    for library in libraries.closure([Path("/bin/ls")]):
        assert entries[str(library).lstrip("/")].contents() == library.read_bytes()
    order = entries[LOAD_ORDER].contents().decode().splitlines()
    assert [Path(line).name for line in order] == [file.name.split(".ko")[0] + ".ko" for file in closure.files]
    assert all(entries[line.lstrip("/")].contents()[:4] == b"\x7fELF" for line in order)
    assert entries["init"].mode & 0o777 == 0o755
    assert entries["dev/console"].device == (5, 1)


def test_the_same_contents_give_the_same_image(tmp_path: Path) -> None:
    for name in ("one", "two"):
        image = Initramfs()
        image.add_program("ls")
        image.write(tmp_path / name, "gzip")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(HostError, match="no-such-program"):
        Initramfs().add_program("no-such-program")

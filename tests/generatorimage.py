"""An image made by a generator that is installed here, in a mount namespace where a laboratory's kernel is installed.

usage: python generatorimage.py BUILDER RELEASE TARGET MODULES CONFIG PYTHON OUTPUT WORK HOST
What the targets need is looked up on a recorded host (tests/data/hosts); programs and libraries are this machine's.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from kdumpy.host import images, settings
from kdumpy.host.images.base import Task
from kdumpy.host.images.needs import look
from kdumpy.host.system import System
from kdumpy.image.modules import ModuleTree
from kdumpy.image.python import PythonTree


def make(builder: str, release: str, target: str, modules: Path, config: Path, python: Path, output: Path, work: Path,
         host: Path) -> None:
    """Build the image; runs inside of the namespace."""
    _lay_over("/usr", work.with_name("over"))       # this machine may have no /lib/modules
    for place, source in ((f"/lib/modules/{release}", modules), (f"/boot/config-{release}", config)):
        if source.is_dir():
            Path(place).mkdir(parents=True)
        else:
            subprocess.run(["mount", "-t", "tmpfs", "none", "/boot"], check=True)
            Path(place).touch()
        subprocess.run(["mount", "--bind", source, place], check=True)
    recorded_host = System(host)
    chosen = settings.parse(f'[capture]\ntargets = ["{target}"]\nfinal_action = "poweroff"\n')
    needs = replace(look(recorded_host, chosen), files={name: str(recorded_host.path(path)) for name, path
                                                        in look(recorded_host, chosen).files.items()})
    pages = sum(-(-path.stat().st_size // 4096) for path in python.rglob("*") if path.is_file())
    task = Task(System(), release, False, ModuleTree(Path(f"/lib/modules/{release}")), needs,
                PythonTree(python, pages * 4096, pages), "zstd", work, output, lambda line: print(line))
    made = images.builder(builder).build(task)
    print(f"made {made.bytes} {made.unpacked} {' '.join(made.modules)}")


def _lay_over(folder: str, place: Path) -> None:
    """Let changes of a directory go elsewhere, for this namespace."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    for name in ("upper", "work"):
        (place / name).mkdir()
    options = f"lowerdir={folder},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folder], check=True)


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2], sys.argv[3], *map(Path, sys.argv[4:]))

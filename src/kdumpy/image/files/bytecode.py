"""Runs in a Python of its own when an image is built: replace each source below a directory by its bytecode.

usage: python -I -S -X no_debug_ranges bytecode.py DIRECTORY PREFIX
No docstrings, no asserts, no columns; PREFIX is the directory's path in the image, for tracebacks. The bytecode lies
where an import takes it without a source. Source: PEP 552 (the header of 16 bytes).
"""

import marshal
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path


def main(directory: str, prefix: str) -> None:
    """Compile all."""
    home = Path(directory)
    # numpy before 2.0 hands its docstrings to C, which takes nothing else for them.
    wordy = home / "numpy" if (home / "numpy/core/_add_newdocs.py").exists() else None
    for path in sorted(home.rglob("*.py")):
        name = str(Path(prefix, path.relative_to(home)))
        code = compile(path.read_bytes(), name, "exec", dont_inherit=True,
                       optimize=1 if wordy and path.is_relative_to(wordy) else 2)
        path.with_suffix(".pyc").write_bytes(MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
        path.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])

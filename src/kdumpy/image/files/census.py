"""Runs in a Python of its own when an image is built: import what a capture may import, and list what that needed.

usage: python -I -S census.py DIRECTORY MODULE…    (DIRECTORY holds kdumpy and the trimmed libraries)
A module with a `?` in front may be missing, one with a `!` cannot be imported; `module:name` wants a name of it too.
Prints one line a module: name, tab, the file it came from, tab, `frozen` when the interpreter holds it itself.
"""

import sys
from importlib import import_module


def main(arguments: list[str]) -> None:
    """Import all and print."""
    directory, *modules = arguments
    sys.path.insert(0, directory)
    for name in modules:
        if name.startswith("!"):
            sys.modules[name[1:]] = None  # type: ignore[assignment]
            continue
        module, _, attribute = name.lstrip("?").partition(":")
        try:
            found = import_module(module)
            if attribute:
                getattr(found, attribute)
        except (ImportError, AttributeError):
            if not name.startswith("?"):
                raise
    for name, loaded in sorted(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        if file:
            print(name, file, getattr(loaded.__spec__, "origin", ""), sep="\t")


if __name__ == "__main__":
    main(sys.argv[1:])

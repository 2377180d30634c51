"""The parts import downward only: DESIGN's table, held."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "kdumpy"

MAY_IMPORT = {
    "dumpfile": {"numpy", "zstandard", "lzallright", "cramjam", "isal"},
    "capture": {"dumpfile", "numpy", "zstandard"},
    "image": {"zstandard"},
    "host": {"image", "capture"},
    "vm": {"image"},
    "debuginfo": {"drgn"},
    "kernel": {"debuginfo", "dumpfile", "drgn", "numpy"},
    # numpy: a hundred thousand types and symbols at once; debuginfo may not load it, which is on the report's way.
    "vmlinux": {"kernel", "debuginfo", "dumpfile", "drgn", "numpy"},
    "crash": {"kernel", "debuginfo", "dumpfile", "drgn", "capstone", "numpy", "prompt_toolkit", "IPython"},
    "diagnosis": {"kernel", "debuginfo", "dumpfile", "drgn", "capstone"},
    "report": {"diagnosis", "rich", "jinja2", "markupsafe"},
    "cli": {"capture", "crash", "debuginfo", "diagnosis", "dumpfile", "host", "image", "kernel", "report", "vm",
            "vmlinux", "drgn", "rich", "prompt_toolkit", "shtab"},
}
"""What each part may import beside the standard library, itself, kdumpy.errors and kdumpy.units."""

CARRIED = (PACKAGE / "image" / "files",)
"""What lies there is data of its part: it is copied into the capture image and runs there."""

STANDARD = set(__import__("sys").stdlib_module_names)


def imports_of(path: Path) -> set[str]:
    """Return the parts and the libraries that a file imports, type checking's too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" if node.module == "kdumpy" else str(node.module)
                     for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(parts[1] if parts[0] == "kdumpy" and len(parts) > 1 else parts[0])
    return found


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_what_lies_below_it(part: str) -> None:
    allowed = MAY_IMPORT[part] | STANDARD | {part, "errors", "units", "__version__"}
    wrong = {str(path.relative_to(PACKAGE)): sorted(imports_of(path) - allowed)
             for path in sorted((PACKAGE / part).rglob("*.py")) if path.parent not in CARRIED}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_every_part_stands_in_the_table() -> None:
    parts = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert parts == set(MAY_IMPORT)


def test_the_table_is_tested_by_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("from kdumpy.report import text\nimport drgn\nfrom kdumpy import cli\n")
    assert imports_of(file) == {"report", "drgn", "cli"}


KNOWN_CIRCLES = [{"kdumpy.host.distribution", "kdumpy.host.packages", "kdumpy.host.system"}]
"""A program that is missing is told with the package that has it, and that depends on the system."""


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {_name_of(path): path for path in PACKAGE.rglob("*.py") if path.parent not in CARRIED}
    below = {name: _files_imported(path) & set(names) - {name} for name, path in names.items()}
    # What can only be reached through others ends up in no circle: take away what imports nothing that is left.
    while leaves := {name for name, imported in below.items() if not imported & set(below)}:
        below = {name: imported for name, imported in below.items() if name not in leaves}
    while roots := set(below) - {each for imported in below.values() for each in imported}:
        below = {name: imported for name, imported in below.items() if name not in roots}
    assert [set(below)] == KNOWN_CIRCLES


def _name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_FILES = {_name_of(path) for path in PACKAGE.rglob("*.py")}


def _files_imported(path: Path) -> set[str]:
    """Return the modules that a file imports when it runs, early or late: type checking's do not count."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            files = inside & _FILES
            found |= files if files == inside else files | {node.module}
        waiting += ast.iter_child_nodes(node)
    return found

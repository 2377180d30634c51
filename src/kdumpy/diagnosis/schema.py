"""The JSON Schema of a diagnosis and its documentation, made from the classes of `model`.

Run `python -m kdumpy.diagnosis.schema` after the model was changed: it writes `schema-1.json` beside this
file and `docs/diagnosis-schema.md` in a checkout. A test holds that both are up to date.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
import typing
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from kdumpy.diagnosis import model
from kdumpy.diagnosis.causes import causes
from kdumpy.diagnosis.facts import findings, memory, reading, waits

_MODULES = (model, reading, waits, memory, findings)
"""Where the classes of the diagnosis are."""
SCHEMA_FILE = Path(__file__).with_name(f"schema-{model.SCHEMA}.json")
DOCUMENT = Path(__file__).parents[3] / "docs" / "diagnosis-schema.md"

_HEX = {"type": "string", "pattern": "^0x[0-9a-f]+$"}
_JSON_TYPES: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12)."""
    words = _words()
    classes = [item for module in _MODULES for item in vars(module).values()
               if isinstance(item, type) and is_dataclass(item) and item.__module__ == module.__name__]
    definitions = {made.__name__: _object(made, words) for made in classes}
    whole = definitions.pop("Diagnosis")
    definitions["Verdict"]["properties"]["cause"]["enum"] = cause_names()
    whole["properties"]["schema"]["const"] = model.SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kdumpy diagnosis",
            **whole, "$defs": definitions}


def cause_names() -> list[str]:
    """Return every value that `verdict.cause` can have."""
    return sorted({cause.kind for cause in causes()} | {"none"})


def _words() -> dict[str, dict[str, str]]:
    """Return the docstrings under the fields, by class and field; and the class's own under ""."""
    found: dict[str, dict[str, str]] = {}
    for node in (node for module in _MODULES for node in ast.parse(inspect.getsource(module)).body):
        if not isinstance(node, ast.ClassDef):
            continue
        found[node.name] = {"": ast.get_docstring(node) or ""}
        for item, following in zip(node.body, node.body[1:], strict=False):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) \
                    and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                found[node.name][item.target.id] = " ".join(str(following.value.value).split())
    return found


def _object(made: Any, words: dict[str, dict[str, str]]) -> dict[str, Any]:
    hints = typing.get_type_hints(made)
    properties = {}
    for item in fields(made):
        described = words[made.__name__].get(item.name, "")
        properties[item.name] = {**_type(hints[item.name], item.metadata.get("hex", False)), "description": described}
    return {"type": "object", "description": words[made.__name__][""], "properties": properties,
            "required": [item.name for item in fields(made)], "additionalProperties": False}


def _type(hint: Any, as_hex: bool) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(item, as_hex) for item in arguments if item is not type(None)] + [{"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], as_hex)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], as_hex)}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(item) for item in hint]}
    if is_dataclass(hint) and isinstance(hint, type):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    return dict(_HEX) if as_hex and hint is int else {"type": _JSON_TYPES[hint]}


def document() -> str:
    """Return the documentation, in Markdown."""
    schema = json_schema()
    parts = ["# The diagnosis as JSON", "",
             "`kdumpy report VMCORE --json` prints one object. Its schema is "
             f"[schema-{model.SCHEMA}.json](../src/kdumpy/diagnosis/schema-{model.SCHEMA}.json) (JSON Schema 2020-12). "
             "`schema` is raised when a field is removed or changes its meaning; new fields do not raise it. Addresses "
             "are text, `0x` and hexadecimal digits, because JSON's numbers are too small for many readers; sizes are "
             "bytes; a value that the dump does not hold is `null`, and `dump.missing` says why.", "",
             "This file is made by `python -m kdumpy.diagnosis.schema`.", "",
             "## The causes", ""]
    known = {cause.kind: (cause.__doc__ or "").strip() for cause in causes()}
    parts += [f"- `{kind}`: {known[kind]}" for kind in sorted(known)]
    parts += ["- `none`: The kernel did not crash.", ""]
    parts += _table("The diagnosis", schema)
    for name, definition in schema["$defs"].items():
        parts += _table(name, definition)
    return "\n".join(parts).rstrip() + "\n"


def _table(title: str, definition: dict[str, Any]) -> list[str]:
    rows = [f"| `{name}` | {_type_words(item)} | {item['description'].replace('|', chr(92) + '|')} |"
            for name, item in definition["properties"].items()]
    return [f"## {title}", "", definition["description"], "", "| field | type | |", "|---|---|---|", *rows, ""]


def _type_words(item: dict[str, Any]) -> str:
    if "anyOf" in item:
        return " or ".join(_type_words(part) for part in item["anyOf"])
    if "$ref" in item:
        name = item["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if item.get("enum") and "type" not in item:
        return ", ".join(f"`{value}`" for value in item["enum"])
    if item.get("type") == "array":
        return f"list of {_type_words(item['items'])}"
    if item.get("type") == "object":
        return f"object of {_type_words(item['additionalProperties'])}"
    return "address" if "pattern" in item else str(item["type"])


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=1) + "\n", "utf-8")
    DOCUMENT.write_text(document(), "utf-8")

"""Configuration files whose keys are declared as the fields of a dataclass: read, checked, written with their meaning.

A field is a key, a field that is such a dataclass itself is a table. Standard library only, and little of it: the
capture kernel reads its configuration before anything large is imported.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, get_origin, get_type_hints

from kdumpy.errors import UsageError

_T = TypeVar("_T")

_WORDS: dict[type, str] = {int: "a number", str: 'a text in "…"', bool: "true or false"}


def key(meaning: str, default: Any = MISSING, **limits: Any) -> Any:
    """Declare one key of a file.

    Args:
        meaning: what the sample and the documentation say of it.
        default: its value where the file does not name it; without one it must.
        limits: `choices` (known values), `least` and `most` of a number.
    """
    metadata = types.MappingProxyType({"doc": meaning, **limits})
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def doc(text: str) -> Mapping[str, Any]:
    """Return the metadata of a field that is a table of keys: its own dataclass, whose keys all have defaults."""
    return types.MappingProxyType({"doc": text})


def check(values: Any) -> None:
    """Hold each value of a dataclass against its limits; UsageError names the key."""
    for declared in fields(values):
        _check_value(declared.name, getattr(values, declared.name), declared.metadata)


def _check_value(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if "choices" in limits and value not in limits["choices"]:
        known = limits["choices"]
        raise wrong(name, f"is {value!r}", f"{nearest(value, known)}known: {', '.join(known)}")
    least, most = limits.get("least"), limits.get("most")
    if (least is not None and value < least) or (most is not None and value > most):
        raise wrong(name, f"is {value}", f"from {least} to {most} is right" if most else f"{least} is the least")
    for text in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
        if any(ord(letter) < 32 for letter in text):
            raise wrong(name, "holds control characters", "write it in one line")


def from_values(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Make a dataclass of plain values, as TOML or JSON gives them; UsageError says which key is wrong and how."""
    hints = get_type_hints(kind)
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise UsageError(f"there is no key {name!r}", mend=f"{nearest(name, hints)}known: {', '.join(hints)}")
        settings[name] = _typed(name, value, hints[name])
    for declared in fields(kind):  # type: ignore[arg-type]
        if declared.default is MISSING and declared.default_factory is MISSING and declared.name not in settings:
            raise wrong(declared.name, "is missing", f"it names {declared.metadata['doc']}")
    return kind(**settings)


def _typed(name: str, value: Any, hint: Any) -> Any:
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise wrong(name, f"is {value!r}", f"it is a table: [{name}]")
        return from_values(kind, value)
    if kind is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise wrong(name, f"is {value!r}", 'a list of texts is right: ["…", "…"]')
        return tuple(value)
    if type(value) is not kind:
        raise wrong(name, f"is {value!r}", f"{_WORDS[kind]} is right")
    return value


def render(values: Any, *, documented: bool = False) -> str:
    """Return a dataclass as TOML, which reads back to the same; with each key's meaning above it if wanted."""
    return "\n".join(_lines(values, "", documented=documented)) + "\n"


def _lines(values: Any, prefix: str, *, documented: bool) -> Iterator[str]:
    tables = []
    for declared in fields(values):
        value = getattr(values, declared.name)
        if dataclasses.is_dataclass(value):
            tables.append((declared, value))
            continue
        if documented:
            yield f"# {declared.metadata['doc']}"
        yield f"{declared.name} = {toml(value)}"
    for declared, value in tables:        # in TOML what follows a table's head belongs to it
        name = f"{prefix}{declared.name}"
        yield ""
        if documented:
            yield f"# {declared.metadata['doc']}"
        yield f"[{name}]"
        yield from _lines(value, f"{name}.", documented=documented)


def toml(value: Any) -> str:
    """Return a plain value as TOML writes it; no control characters are let in, so quote and backslash are all."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "[" + ", ".join(map(toml, value)) + "]"


def nearest(word: str, known: Any) -> str:
    """Return a hint for a word that is not known: `did you mean level? `, or nothing."""
    import difflib  # only where something is wrong

    found = difflib.get_close_matches(str(word), list(known), n=1)
    return f"did you mean {found[0]}? " if found else ""


def wrong(key: str, what: str, mend: str) -> UsageError:
    """Return the error that a key's value is."""
    return UsageError(f"{key} {what}", mend=mend)

"""Which member of a structure lies at an offset."""

from __future__ import annotations

from dataclasses import dataclass

import drgn

_DEEPEST = 12
_MOST = 4
"""Members of a union that are named beside each other."""


@dataclass(frozen=True)
class Member:
    """A place in a structure."""

    path: str
    """`ops`, `poll_work.timer.expires`, `rates[3]`; members of a union are joined by ` or `."""
    type: drgn.Type | None
    """None where members of a union overlap and differ."""


def bare(made: drgn.Type) -> drgn.Type:
    """Return a type without its typedefs."""
    for _ in range(_DEEPEST):
        if made.kind != drgn.TypeKind.TYPEDEF:
            break
        made = made.type
    return made


def pointed(made: drgn.Type | None) -> drgn.Type | None:
    """Return the complete structure that a pointer points to; None for every other type."""
    target = bare(made) if made is not None else None
    if target is None or target.kind != drgn.TypeKind.POINTER:
        return None
    target = bare(target.type)
    return target if is_structure(target) and target.is_complete() else None


def is_structure(made: drgn.Type) -> bool:
    """Whether a type is a struct or union."""
    return made.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION)


def called(made: drgn.Type) -> str:
    """Return a type's name as in C: `struct flaky_channel`."""
    word = {drgn.TypeKind.STRUCT: "struct ", drgn.TypeKind.UNION: "union "}.get(made.kind, "")
    return f"{word}{made.tag}" if word and made.tag else str(made.type_name())


def member_at(made: drgn.Type, offset: int, size: int = 0, depth: int = 0) -> Member | None:
    """Return what lies at an offset of a structure; None where nothing does.

    Args:
        made: the structure.
        offset: bytes from its begin.
        size: bytes that are used there; chooses among members of a union. 0: unknown.
    """
    made = bare(made)
    if depth > _DEEPEST:
        return None
    if made.kind == drgn.TypeKind.ARRAY:
        width = drgn.sizeof(made.type)
        if not width or (made.length is not None and offset >= width * made.length):
            return None
        inner = member_at(made.type, offset % width, size, depth + 1)
        if inner is None:
            return None
        dot = "." if inner.path and not inner.path.startswith("[") else ""
        return Member(f"[{offset // width}]{dot}{inner.path}", inner.type)
    if not is_structure(made):
        return Member("", made) if offset == 0 or offset < drgn.sizeof(made) else None
    if size and offset == 0 and drgn.sizeof(made) < size:
        return None
    return _chosen(_inside(made, offset, size, depth), size)


def _inside(made: drgn.Type, offset: int, size: int, depth: int) -> list[Member]:
    found = []
    for member in made.members or ():
        if member.bit_field_size:
            begin, width = member.bit_offset // 8, max(1, (member.bit_offset % 8 + member.bit_field_size + 7) // 8)
            if begin <= offset < begin + width and member.name:
                found.append(Member(member.name, None))
            continue
        begin = member.bit_offset // 8
        width = drgn.sizeof(member.type) if member.type.is_complete() else 0
        flexible = bare(member.type).kind == drgn.TypeKind.ARRAY and not bare(member.type).length
        if not begin <= offset or not (offset < begin + width or flexible):
            continue
        inner = member_at(member.type, offset - begin, size, depth + 1)
        if inner is None:
            continue
        name = member.name or ""
        dot = "." if name and inner.path and not inner.path.startswith("[") else ""
        found.append(Member(f"{name}{dot}{inner.path}", inner.type))
    return found


def _chosen(found: list[Member], size: int) -> Member | None:
    if len(found) < 2:
        return found[0] if found else None
    fitting = [item for item in found if item.type is not None and size and drgn.sizeof(item.type) == size] or found
    names = list(dict.fromkeys(item.path for item in fitting))
    types = {str(item.type) for item in fitting}
    return Member(" or ".join(names[:_MOST]), fitting[0].type if len(types) == 1 else None)

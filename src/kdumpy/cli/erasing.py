"""What --erase does: find the secrets, wrap the dump, and say what was erased and what could not be judged."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.erased import ErasedDump, LeftOut
from kdumpy.errors import HostError, NotInDump, UsageError
from kdumpy.units import human_bytes, printable

if TYPE_CHECKING:
    from kdumpy.kernel.erasure import Erasure

USER = "user"
"""The name that means pages, not bytes."""
_USER_LEVEL = 8 | 16
"""The dump level that leaves the same pages out: user pages, and free ones, which hold what was in them before."""


def erase(dump: Dump, path: Path, names: Sequence[str]) -> ErasedDump:
    """Return the dump without the secrets that are named; say on standard error what was found."""
    if not all(names):
        raise UsageError("--erase wants a name", mend="keys, environment, user, SYMBOL or STRUCT.MEMBER")
    found = _find(path, list(dict.fromkeys(names)))
    told = [each.as_json() for each in found]
    left_out, level = None, 0
    if USER in names:
        left_out, pages = user_pages(dump)
        level = _USER_LEVEL
        told.append({"name": USER, "what": "user pages and free pages, left out", "count": pages,
                     "bytes": pages * dump.page_size, "unread": 0, "why_unread": None, "not_judged": None})
    extents = [extent for each in found for extent in each.extents]
    info = "".join(each.eraseinfo for each in found)
    if USER in names:
        info += f"erase user.pages size {told[-1]['bytes']}\n"
    for line in told:
        print(f"kdumpy: {printable(_in_words(line))}", file=sys.stderr)
    return ErasedDump(dump, extents, info.encode(), left_out=left_out, level=level, told=tuple(told))


def all_judged(dump: Dump) -> bool:
    """Whether every secret that was named could be looked for."""
    return not isinstance(dump, ErasedDump) or \
        not any(line["not_judged"] or line["unread"] for line in dump.told)


def _find(path: Path, names: Sequence[str]) -> list[Erasure]:
    if not names:
        return []
    try:
        from kdumpy.kernel import open_kernel, secrets
    except ImportError as error:
        raise HostError("--erase has to look into the kernel's structures", why=f"{error.name} is not installed here",
                        mend="pip install 'kdumpy[analyze]', on a workstation: the capture image has it not") from error
    import logging

    logging.getLogger("drgn").setLevel(logging.CRITICAL)    # what matters of it is in our errors
    with open_kernel(path) as kernel:
        return secrets.extents(kernel, names)


def _in_words(line: dict[str, object]) -> str:
    if line["not_judged"]:
        return f"not judged, so not erased: {line['what']}: {line['not_judged']}"
    size = line["bytes"]
    assert isinstance(size, int)
    text = f"erased: {line['what']}: {line['count']}, {human_bytes(size)}" if line["count"] else \
        f"none found: {line['what']}"
    if line["unread"]:
        text += f"; {line['unread']} could not be reached: {line['why_unread']}"
    return text


def user_pages(dump: Dump) -> tuple[LeftOut, int]:
    """Return which pages are user pages or free, and how many of them the dump holds.

    Raises:
        NotInDump: this kernel's page layout is not known, so nothing tells them apart.
    """
    from kdumpy.capture.mask import mask_of

    try:
        return mask_of(dump, _USER_LEVEL)
    except NotInDump as error:
        raise NotInDump("which pages are the users' cannot be told", where=error.where, why=str(error),
                        mend="capture again with -d 31") from error

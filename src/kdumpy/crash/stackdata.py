"""The words of a stack between its frames, and what they point at: `bt -f`, `-F` and `-FF`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import drgn

from kdumpy.crash.session import Session
from kdumpy.crash.stack import StackFrame
from kdumpy.debuginfo.reading import READ_ERRORS

_MOST = 64 << 10
"""Bytes of one frame."""
_NAMED = frozenset(("task_struct", "filp", "dentry"))
"""The slab caches whose objects have names."""


@dataclass(frozen=True)
class StackWord:
    """A word of a stack."""

    address: int
    value: int
    symbol: str
    """The symbol it points into, with the offset; or empty."""
    cache: str
    """The slab cache that it points into; or empty."""
    object: str
    """What it is, where that is known: `task 25 "kworker/u4:1"`, `file /dev/console`, with the offset of a pointer
    into its middle (`task 1 "init" +16`); or empty."""


def frame_words(session: Session, frames: Sequence[StackFrame], number: int, *,
                symbolic: bool) -> tuple[StackWord, ...]:
    """Return the words from behind a frame's own slot to the next frame's, that one included."""
    frame = frames[number]
    following = next((later for later in frames[number + 1:] if not later.inline), None)
    if following is None or not frame.slot or frame.inline or following.stack == "USER":
        return ()
    start = frame.slot if frame.registers else frame.slot + 8
    stop = following.slot + 8
    if not 0 < stop - start <= _MOST or start % 8:
        return ()       # the next frame lies on another stack
    try:
        data = session.prog.read(start, stop - start)
    except drgn.FaultError:
        return ()
    words = memoryview(data).cast("Q")
    return tuple(_word(session, start + 8 * place, value, symbolic) for place, value in enumerate(words))


def _word(session: Session, address: int, value: int, symbolic: bool) -> StackWord:
    if not symbolic or not value >> 63:
        return StackWord(address, value, "", "", "")
    place = session.place(value, radix=10)
    if place:
        return StackWord(address, value, place, "", "")
    try:
        cache = session.slab_names.of(value)
    except READ_ERRORS:
        cache = ""
    return StackWord(address, value, "", cache, _pointed_at(session, cache, value) if cache in _NAMED else "")


def _pointed_at(session: Session, cache: str, pointer: int) -> str:
    """Return what the object of a slab is into which a pointer leads, and how far into it."""
    try:
        begin = session.slab_names.begin(pointer)
    except READ_ERRORS:
        begin = None
    if begin is None:
        return ""
    name = object_name(session, cache, begin)
    return f"{name} +{pointer - begin}" if name and pointer != begin else name


def object_name(session: Session, cache: str, address: int) -> str:
    """Return what the object that begins at an address is, in a few words; empty where that is not known."""
    try:
        if cache == "task_struct":
            task = session.kernel.task_object(address)
            pid, comm = task.pid.value_(), task.comm.string_()
            return f'task {pid} "{comm.decode("utf-8", "backslashreplace")}"' if session.is_task(task) else ""
        if cache == "filp":
            from drgn.helpers.linux.fs import d_path

            path = d_path(drgn.Object(session.prog, "struct file *", value=address).f_path)
            return f"file {path.decode('utf-8', 'backslashreplace')}"
        if cache == "dentry":
            from drgn.helpers.linux.fs import dentry_path

            path = dentry_path(drgn.Object(session.prog, "struct dentry *", value=address))
            return f"dentry {path.decode('utf-8', 'backslashreplace')}"
    except READ_ERRORS:
        return ""
    return ""


def lines(words: Sequence[StackWord], level: int) -> Iterator[str]:
    """Yield words two a line: plain (0), with names (1), with addresses and names (2)."""
    for place in range(0, len(words), 2):
        pair = words[place:place + 2]
        yield f"    {pair[0].address:016x}: {' '.join(f'{_shown(word, level):<16}' for word in pair)}".rstrip()


def _shown(word: StackWord, level: int) -> str:
    if level and word.symbol:
        return word.symbol
    if level and word.cache:
        what = f" {word.object}" if word.object else ""
        return f"[{word.value:x}:{word.cache}{what}]" if level > 1 else f"[{word.cache}]"
    return f"{word.value:016x}"

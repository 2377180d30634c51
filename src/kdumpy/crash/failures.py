"""Whatever goes wrong in a command becomes one line that says what, where and why."""

from __future__ import annotations

import drgn

from kdumpy.errors import DamagedDump, KdumpyError, MissingPage, NotInDump

UNKNOWN = "the dump has no type for it, or the kernel does not have it"
"""Why a name may not be known, where nothing more is known of that either."""
_NO_BASE = "could not find variable in direct mapping"
"""drgn, where the variable that it measures by is none that it knows (libdrgn/linux_kernel.c)."""


def explain(error: BaseException, command: str = "") -> KdumpyError:
    """Return an error of any kind as one of ours."""
    if isinstance(error, KdumpyError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return explain(error.exceptions[0], command)
    if isinstance(error, drgn.FaultError):
        return missing_page(error)
    if isinstance(error, drgn.ObjectNotFoundError):
        return NotInDump(f"no variable or constant {error.name!r} is known", where=command,
                         why=UNKNOWN)
    if isinstance(error, LookupError):
        text = str(error.args[0]) if error.args else type(error).__name__
        return NotInDump(text.rstrip("."), where=command)
    if isinstance(error, RecursionError):
        return KdumpyError("the data go too deep", where=command, why="a structure that holds itself is likely damaged")
    if isinstance(error, MemoryError):
        return KdumpyError("out of memory", where=command, why="more than the limit would be needed")
    if isinstance(error, OSError):
        return KdumpyError(error.strerror or str(error), where=str(error.filename or command))
    first = (str(error) or type(error).__name__).splitlines()[0]
    if _NO_BASE in first:
        return NotInDump("where the kernel's memory is mapped is not known", where=command)
    if isinstance(error, OverflowError):
        return DamagedDump("a number is larger than it can be", where=command,
                           why=f"what it was read from is damaged, or is no such structure ({first})")
    # drgn raises a plain Exception, of which the text is all there is.
    told = type(error) is Exception or isinstance(error, ValueError | TypeError)
    return KdumpyError(first, where=command, why="" if told else type(error).__name__)


def missing_page(error: drgn.FaultError) -> MissingPage:
    """Return the engine's fault as what it means in a dump.

    libkdumpfile says "Excluded page" for one that was filtered out, "... not present: pud[211] = 0x0" for an address
    that no page table maps, and "address is not mapped" or "No way to translate" for one that none can; drgn says
    "could not find memory segment". A bad pointer gives these too.
    """
    text = str(error.args[0]) if error.args else ""
    at = f"{error.address:016x}"
    if "xcluded" in text:
        return MissingPage(f"page excluded at {at}", why="the dump was filtered (see 'kdumpy info')")
    if "No way to translate" in text:
        return MissingPage(f"no memory at {at}", why="no page table of the kernel's reaches there")
    if any(words in text for words in ("could not find memory segment", "not present", "not mapped")):
        return MissingPage(f"no memory at {at}", why="nothing is mapped there")
    return MissingPage(f"page missing at {at}", why=text.rstrip("."))

"""What reading a dump can raise, when the dump is damaged or does not hold what is asked for."""

from __future__ import annotations

from itertools import pairwise

import drgn

from kdumpy.errors import KdumpyError

READ_ERRORS = (drgn.FaultError, drgn.BadDataError, drgn.MissingDebugInfoError, drgn.ObjectAbsentError,
               drgn.OutOfBoundsError, KdumpyError, LookupError, AttributeError, TypeError, ValueError, OverflowError,
               RecursionError)
"""A page that is missing, a name or member that this kernel lacks, a value that makes no sense."""

_PAGE = 4096


def read_patchy(prog: drgn.Program, address: int, size: int) -> bytes:
    """Read memory, with zeros for the pages that are not in the dump."""
    try:
        return bytes(prog.read(address, size))
    except drgn.FaultError:
        if size <= _PAGE - address % _PAGE:
            return bytes(size)
    end = address + size
    borders = [address, *range((address // _PAGE + 1) * _PAGE, end, _PAGE), end]
    return b"".join(read_patchy(prog, start, stop - start) for start, stop in pairwise(borders))

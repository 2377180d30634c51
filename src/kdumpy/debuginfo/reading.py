"""What reading a dump can raise, when the dump is damaged or does not hold what is asked for."""

from __future__ import annotations

import drgn

from kdumpy.errors import KdumpyError

READ_ERRORS = (drgn.FaultError, drgn.BadDataError, drgn.MissingDebugInfoError, drgn.ObjectAbsentError,
               drgn.OutOfBoundsError, KdumpyError, LookupError, AttributeError, TypeError, ValueError, OverflowError,
               RecursionError)
"""A page that is missing, a name or member that this kernel lacks, a value that makes no sense."""

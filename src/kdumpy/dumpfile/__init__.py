"""Dump formats: open a vmcore whatever its format, read pages and the kernel log, judge its health."""

from kdumpy.dumpfile.base import Dump, Utsname
from kdumpy.dumpfile.opening import open_dump

__all__ = ["Dump", "Utsname", "open_dump"]

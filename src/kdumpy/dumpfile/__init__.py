"""Dump formats: open a vmcore whatever its format, read pages and the kernel log, judge its health."""

from kdumpy.dumpfile.base import Dump
from kdumpy.dumpfile.opening import open_dump
from kdumpy.dumpfile.utsname import Utsname

__all__ = ["Dump", "Utsname", "open_dump"]

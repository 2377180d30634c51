"""kdump, whole, in Python: arm a host, capture its panic, and say why it crashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdumpy.kernel import Kernel

__version__ = "0.1.0"


def open(path: str | os.PathLike[str], *, vmlinux: Sequence[str | os.PathLike[str]] = ()) -> Kernel:
    """Open a vmcore as a `Kernel`: `kdumpy.open("vmcore").panic`. See `kdumpy.kernel.open_kernel`."""
    from kdumpy.kernel import open_kernel

    return open_kernel(path, vmlinux=vmlinux)

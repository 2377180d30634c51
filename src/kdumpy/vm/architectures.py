"""What differs between the processors that the laboratory has guests of.

The guest's own processor decides which QEMU runs it, what its console is called, which compiler makes its driver and
where its programs come from; everything else of the laboratory is the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One processor family, as each tool calls it."""

    debian: str
    """Debian's name: the suffix of its packages."""
    machine: str
    """`uname -m`, and the end of QEMU's name."""
    kbuild: str
    """ARCH= of the kernel's makefiles."""
    triplet: str
    """What the compiler's programs begin with."""
    console: str
    """The first serial port's name in the guest."""
    board: tuple[str, ...] = ()
    """QEMU's arguments for the machine and its processor where they are emulated on another one."""


AMD64 = Architecture("amd64", "x86_64", "x86", "x86_64-linux-gnu", "ttyS0")
# `max` has pointer authentication, which every kernel call then signs its return address with; the algorithm of the
# architecture would cost half of the guest's time, `impdef` is a cheap one. SVE is left out: its registers are long.
ARM64 = Architecture("arm64", "aarch64", "arm64", "aarch64-linux-gnu", "ttyAMA0",
                     ("-machine", "virt,gic-version=3", "-cpu", "max,pauth-impdef=on,sve=off"))

ARCHITECTURES = {known.debian: known for known in (AMD64, ARM64)}

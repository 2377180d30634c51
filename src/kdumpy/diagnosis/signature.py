"""What groups crashes of the same bug: `v1 | cause | subtype | module | key function`.

Nothing of a host or a boot is in it: no offsets, addresses, process ids. The version of the rule that made it
stands in front, so that old groups stay when a rule changes; the others keep theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import Finding
from kdumpy.diagnosis.model import Signature
from kdumpy.kernel.values import Frame

VERSION = "v1"
_LOCKUP, _LOCKUP_VERSION = "lockup", "v2"
_LOCKUPS = ("soft-lockup", "hard-lockup", "rcu-stall")
"""One endless loop: which of the kernel's watchdogs notices it first depends on how they are set, on what the machine
has (an NMI of a performance counter). In v1 each had a signature of its own; what tells loops of one caller apart is
whether they let interrupts in, which is the loop's own."""
_ID_DIGITS = 12
_FINER = {"top3": 3, "top16": 16}


def sign(cause: str, finding: Finding, frames: Sequence[Frame], message: str = "") -> Signature:
    """Return the signature of a finding.

    Args:
        cause: the verdict's cause.
        finding: what was found.
        frames: the stack that tells the story, innermost first.
        message: what stands for the key where neither frame nor tokens do.
    """
    decisions = list(finding.decisions)
    frame = finding.key or finding.culprit
    key, module = "", ""
    if frame is not None and (frame.symbol or frame.module):
        key, module = culprit.plain_name(frame) or _unnamed(frame, frames), frame.module or ""
        if finding.key is not None and finding.key is not finding.culprit:
            decisions.append(f"grouped by {key}, where what is stuck was called from")
    elif finding.tokens or message:
        key = finding.tokens or message
        decisions.append("grouped by words: no frame can name this crash")
    version, kind = VERSION, cause
    if cause in _LOCKUPS:
        version, kind = _LOCKUP_VERSION, _LOCKUP
        decisions.append(f"grouped as a {_LOCKUP}, whoever noticed it: here as {cause}")
    parts = (version, kind, finding.subtype, module, key)
    if not key:
        return Signature("", kind, parts, {}, (*decisions, "not grouped: nothing names this crash"))
    names = [culprit.plain_name(item) for item in culprit.own_frames(frames)]
    finer = {name: _id((*parts[:4], *names[:count])) for name, count in _FINER.items()} if names else {}
    title = kind + (f" ({finding.subtype})" if finding.subtype else "") + f" in {key}" \
        + (f" [{module}]" if module else "")
    return Signature(_id(parts), title, parts, finer, tuple(decisions))


def _unnamed(frame: Frame, frames: Sequence[Frame]) -> str:
    """Return what stands for the function of a module of which only the name is known.

    Code of a module that is gone has an address at least; else the kernel's own function tells that stumbled.
    """
    own = culprit.own_frames(frames) if not frame.pc else []
    return culprit.plain_name(own[0]) if own else "unloaded code"


def _id(parts: Sequence[str]) -> str:
    digest = hashlib.sha256(" | ".join(parts).encode("utf-8", "backslashreplace")).hexdigest()
    return f"{parts[0]}-{digest[:_ID_DIGITS]}"

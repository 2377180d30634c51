"""What groups crashes of the same bug: `v1 | cause | subtype | module | key function`.

Nothing of a host or a boot is in it: no offsets, addresses, process ids. The version of the rules
stands in front, so that old groups stay when the rules change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.causes.base import Finding
from kdumpy.diagnosis.model import Signature
from kdumpy.kernel.values import Frame

VERSION = "v1"
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
    if frame is not None and frame.symbol:
        key, module = culprit.plain_name(frame), frame.module or ""
        if finding.key is not None and finding.key is not finding.culprit:
            decisions.append(f"grouped by {key}, where what is stuck was called from")
    elif finding.tokens or message:
        key = finding.tokens or message
        decisions.append("grouped by words: no frame can name this crash")
    parts = (VERSION, cause, finding.subtype, module, key)
    if not key:
        return Signature("", cause, parts, {}, (*decisions, "not grouped: nothing names this crash"))
    names = [culprit.plain_name(item) for item in culprit.own_frames(frames)]
    finer = {name: _id((*parts[:4], *names[:count])) for name, count in _FINER.items()} if names else {}
    title = f"{cause}" + (f" ({finding.subtype})" if finding.subtype else "") + f" in {key}" \
        + (f" [{module}]" if module else "")
    return Signature(_id(parts), title, parts, finer, tuple(decisions))


def _id(parts: Sequence[str]) -> str:
    digest = hashlib.sha256(" | ".join(parts).encode("utf-8", "backslashreplace")).hexdigest()
    return f"{VERSION}-{digest[:_ID_DIGITS]}"

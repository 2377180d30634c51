"""What else is wrong with the machine, or worth to know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class MachineFinding:
    """Something that a check found; there is none where the check found nothing wrong."""

    check: str
    """Name of the check."""
    severity: Severity
    """critical: it can bring a machine down, or did; warning: it should not be so; info: good to know."""
    title: str
    """What is so, in a line."""
    detail: str
    """By what that is known; may be empty."""
    command: str
    """Commands of the shell that show it; may be empty."""


@dataclass(frozen=True)
class Unchecked:
    """A check that could not be made."""

    check: str
    """Name of the check."""
    why: str
    """What the dump does not hold."""

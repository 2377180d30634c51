"""What every check of `kdumpy status` gets and gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from kdumpy.host import crashstate, images, loading, settings, targetstate
from kdumpy.host import machine as machines
from kdumpy.host.crashstate import CrashState
from kdumpy.host.images import BuiltImage
from kdumpy.host.loading import Loaded
from kdumpy.host.machine import Machine
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.host.targetstate import TargetState


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """The next panic is captured, and something is not as it should be."""
    BAD = "bad"
    """The next panic leaves no dump, or the next but one."""
    UNKNOWN = "unknown"
    """It could not be looked at; the reason says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one check found."""

    verdict: Verdict
    reason: str
    """What was seen, in one line."""
    mend: str = ""
    """What to do where the verdict is not ok."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """The figures behind it, for JSON and Prometheus: sizes in bytes, times in seconds since 1970."""


def ok(reason: str, **facts: object) -> Answer:
    """All is well."""
    return Answer(Verdict.OK, reason, "", facts)


def warn(reason: str, mend: str, **facts: object) -> Answer:
    """It is captured, and yet."""
    return Answer(Verdict.WARN, reason, mend, facts)


def bad(reason: str, mend: str, **facts: object) -> Answer:
    """There will be no dump."""
    return Answer(Verdict.BAD, reason, mend, facts)


def unknown(reason: str, mend: str = "", **facts: object) -> Answer:
    """It could not be looked at."""
    return Answer(Verdict.UNKNOWN, reason, mend, facts)


class Check(Protocol):
    """A module of this package."""

    ESSENTIAL: bool
    """Where this is unknown, it is not known whether the machine is ready."""

    def look(self, facts: Facts) -> Answer:
        """Look; HostError, UsageError and OSError count as unknown."""


class Facts:
    """What the checks look at, each read once and only when it is asked for."""

    def __init__(self, system: System, cause_of: Callable[[str], str] = lambda log: "") -> None:
        """Take the system, and what tells the cause of a crash by the text of its kernel's log."""
        self.system = system
        self.cause_of = cause_of

    @cached_property
    def settings(self) -> Settings:
        """UsageError where the file is wrong."""
        return settings.load(self.system)

    @cached_property
    def state(self) -> CrashState:
        """What the kernel says of its capture kernel."""
        return crashstate.look(self.system)

    @cached_property
    def machine(self) -> Machine:
        """The machine."""
        return machines.look(self.system)

    @cached_property
    def release(self) -> str:
        """Of the capture kernel."""
        return loading.target_release(self.system, self.settings)

    @cached_property
    def image(self) -> BuiltImage | None:
        """The capture image and what it was made of."""
        return images.load(self.system, self.release)

    @cached_property
    def loaded(self) -> Loaded | None:
        """What kdumpy loaded."""
        return loading.loaded_now(self.system)

    @cached_property
    def targets(self) -> tuple[TargetState, ...]:
        """The targets, in order of preference."""
        return targetstate.look(self.system, self.settings.capture)

    @cached_property
    def privileged(self) -> bool:
        """Whether everything may be read."""
        return not self.system.live or os.geteuid() == 0

"""What a cause is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from kdumpy.diagnosis import culprit
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Confidence, Evidence
from kdumpy.kernel.values import Frame, Task

CERTAIN, LIKELY, POSSIBLE = Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE


@dataclass(frozen=True)
class Finding:
    """A cause that fits a crash."""

    title: str
    """The cause in one line, with the culprit's name where it has one."""
    confidence: Confidence
    explanation: str
    """Plain words for an administrator: what happened, then what it means."""
    evidence: Sequence[Evidence]
    next: Sequence[str] = ()
    """What to do, before the general advice."""
    culprit: Frame | None = None
    subtype: str = ""
    """Tells apart bugs of one cause in the signature: `read`, `write`, `underflow`, ..."""
    decisions: Sequence[str] = ()
    """How the culprit was chosen."""
    key: Frame | None = None
    """The frame that names the crash for grouping; the culprit where None."""
    trace: Sequence[Frame] = ()
    """The stack that tells the story, where it is not the one that panicked."""
    trace_task: Task | None = None
    """The task whose stack that is."""
    trace_of: str = ""
    """What that stack is of, where it is no task's: `the allocation of most of the objects`."""
    tokens: str = ""
    """Stands for the key frame in the signature where no frame can."""


@dataclass(frozen=True)
class Unjudged:
    """The dump does not hold what the cause needs to be judged."""

    why: str


class Cause:
    """One cause: a file, a class, a `match`."""

    kind: ClassVar[str]
    """Its name, as in the JSON."""
    outranks: ClassVar[tuple[str, ...]] = ()
    """Causes that are only symptoms when this one fits."""

    def match(self, crash: Crash) -> Finding | Unjudged | None:
        """Return what was found; None when the cause does not fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class Words:
    """The recurring phrases about a crash, so that each cause says only what is its own."""

    crash: Crash
    frame: Frame | None = field(default=None)

    @property
    def name(self) -> str:
        """`flaky_poll_channel() of the module flaky`, or `code without a name`."""
        if self.gone:
            return f"code of the module {self.frame.module if self.frame else ''}, which had been unloaded"
        if self.frame is not None and not self.frame.function and self.frame.module:
            return f"the module {self.frame.module}"
        if self.frame is None or not self.frame.function:
            return "code without a name"
        if self.frame.data:
            return f"code that works on the variable {self.frame.symbol} of the module {self.frame.module}"
        return f"{self.frame.function}()" + (f" of the module {self.frame.module}" if self.frame.module else "")

    @property
    def gone(self) -> bool:
        """Whether the module to blame is not there any more, and none of its functions can be named."""
        return self.frame is not None and not self.frame.function and self.frame.module is not None \
            and self.crash.kernel is not None and self.frame.module not in self.crash.modules

    @property
    def short(self) -> str:
        """`flaky_poll_channel [flaky]`, for titles; empty without a frame."""
        if self.gone:
            return f"the unloaded module {self.frame.module if self.frame else ''}"
        if self.frame is not None and not self.frame.function and self.frame.module:
            return f"the module {self.frame.module}"
        if self.frame is None or not self.frame.function:
            return ""
        return self.frame.function + (f" [{self.frame.module}]" if self.frame.module else "")

    def titled(self, words: str) -> str:
        """Return `words in FUNCTION [MODULE]`."""
        joined = "on" if self.frame is not None and self.frame.data else "in"
        return f"{words} {joined} {self.short}" if self.short else words

    @property
    def where(self) -> str:
        """A sentence: what ran the code."""
        return self.where_in(self.crash.told_stack, self.crash.task_words)

    @staticmethod
    def where_in(frames: Sequence[Frame], who: str) -> str:
        """Return a sentence: what ran the code of a stack, in which task."""
        context = culprit.context_of(frames) or ""
        if not who or not context:
            return f"It ran in {context or who}." if context or who else ""
        if context.startswith("a kernel thread") or "idle loop" in context:
            return f"It ran in {who}."
        if "system call" in context:
            return f"It ran in {context} of {who}."
        if culprit.had_interrupted(frames):
            return f"It ran in {context}, which had interrupted {who}."
        return f"It ran in {context}, in {who}."

    @property
    def blame(self) -> str:
        """A sentence: whose bug it is."""
        if self.frame is None:
            return ""
        if self.frame.module is None:
            return "This is a bug in the kernel, or memory that something else has corrupted."
        module = self.crash.modules.get(self.frame.module)
        if self.gone:
            return (f"This is a bug in the module {self.frame.module}: what it leaves set when it is unloaded must be "
                    "cancelled in its exit.")
        if self.crash.is_foreign(self.frame.module):
            kind = "proprietary " if module and "P" in module.taints else ""
            return (f"This is a bug in the {kind}module {self.frame.module}, which is not part of this kernel "
                    "but was built and installed separately.")
        return f"This is a bug in the module {self.frame.module}, or memory that something else has corrupted."

    @property
    def suspicion(self) -> str:
        """A sentence: whose bug it may be, where only who met with the damage is known, not who did it."""
        module = self.frame.module if self.frame else None
        if not module:
            return "The dump does not show who did that."
        outside = ", which is not part of this kernel," if self.crash.is_foreign(module) else ""
        return (f"The dump does not show who did that: the module {module}{outside} is the first suspect, but any code "
                "may have.")

    def paragraph(self, *sentences: str) -> str:
        """Join the sentences that are not empty; a function's name keeps its small letter at the beginning of one."""
        return " ".join(f"C{sentence[1:]}" if sentence.startswith("code ") else sentence
                        for sentence in sentences if sentence)

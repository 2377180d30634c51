"""Which frame of a stack is to blame, and which one names the crash for grouping.

The lists are data (`data/*.txt`). Rules, in order:
1. frames that end a crash or serve anybody ("plumbing") are skipped, a module's frame never is;
2. the nearest frame of a module outranks the kernel's own code above it, within one context;
3. else the first own frame that does not merely pass a call on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from kdumpy.kernel.values import Frame

_SYSCALL_PREFIXES = ("__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__x64_compat_sys_", "__arm64_sys_",
                     "__do_compat_sys_", "__se_compat_sys_", "__se_sys_", "__do_sys_", "__pfx_")

_INTERRUPTS = ("asm_sysvec_", "asm_common_interrupt", "el1h_64_irq", "el1_irq", "el0t_64_irq", "el0_irq")
"""Beginnings of the entries of interrupts (arch/x86/include/asm/idtentry.h, arch/arm64/kernel/entry.S)."""
_OF_TASKS = ("thread", "work queue", "system call", "start of", "end of a process", "idle loop")
"""What the words of a context have that is a task's own, and interrupts none."""
_SOFT = frozenset({"handle_softirqs", "__do_softirq"})
"""What runs soft interrupts: also where somebody turns them on again (local_bh_enable()), who need not have raised
one."""


@dataclass(frozen=True)
class NameList:
    """Names and beginnings of names."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.exact or name.startswith(self.prefixes)


@dataclass(frozen=True)
class Choice:
    """A chosen frame, and how it was chosen."""

    frame: Frame | None
    decisions: tuple[str, ...]
    doubtful: bool = False
    """It is not of the stack's own context, but told by data, or of what was interrupted: it may be innocent."""


@cache
def name_list(name: str) -> NameList:
    """Return a list of the data folder; what stands behind a | is not part of a name."""
    names = [line.split("|")[0].strip() for line in _lines(name)]
    return NameList(frozenset(item for item in names if not item.endswith("*")),
                    tuple(item[:-1] for item in names if item.endswith("*")))


@cache
def contexts() -> dict[str, str]:
    """Return what context an anchor's callee runs in, by the anchor's name."""
    pairs = (line.partition("|") for line in _lines("anchors"))
    return {name.strip(): words.strip() for name, _, words in pairs}


def _lines(name: str) -> list[str]:
    text = (files("kdumpy.diagnosis") / "data" / f"{name}.txt").read_text("ascii")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def plain_name(frame: Frame) -> str:
    """Return a function's name for comparing: no suffix of the compiler or of a kernel's, no system call's prefix."""
    # 6.10 marks functions of the allocation profile: b951aaff5035 "mm: enable page allocation tagging".
    name = (frame.function or "").removesuffix("_noprof")
    for prefix in _SYSCALL_PREFIXES:
        if name.startswith(prefix):
            return f"sys_{name[len(prefix):]}" if "sys" in prefix else name[len(prefix):]
    return f"sys_{name[5:]}" if name.startswith("ksys_") else name


def own_frames(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames that are neither plumbing nor a process's nor without code."""
    plumbing = name_list("plumbing")
    return [frame for frame in frames
            if frame.symbol and not frame.user and (frame.module or plain_name(frame) not in plumbing)]


def choose(frames: Sequence[Frame], *, past_soft: bool = False) -> Choice:
    """Choose the frame to blame out of a stack, innermost first.

    Args:
        frames: the stack.
        past_soft: go on to what a soft interrupt ran on top of.
    """
    decisions: list[str] = []
    context = _one_context(frames, past_soft=past_soft)
    own = own_frames(context)
    _tell_skipped(context, own, decisions)
    module = next((frame for frame in own if frame.module), None)
    if module is not None:
        above = own[: own.index(module)]
        if above:
            decisions.append(f"{plain_name(module)} of module {module.module} outranks the kernel's own "
                             + ", ".join(plain_name(frame) for frame in above))
        decisions.append(f"chosen: {plain_name(module)} [{module.module}], the nearest frame of a module")
        return Choice(module, tuple(decisions))
    forwarders = name_list("forwarders")
    for frame in own:
        if plain_name(frame) not in forwarders:
            decisions.append(f"chosen: {plain_name(frame)}, the first frame that is not plumbing")
            return Choice(frame, tuple(decisions))
        decisions.append(f"passed over: {plain_name(frame)} only passes a call on")
    return Choice(None, (*decisions, "no frame is left to choose"))


def above_anchor(frames: Sequence[Frame]) -> Choice:
    """Choose the frame by which a stuck stack is known: its outermost own one, a module's if there is one.

    Where something is stuck, the innermost frame is where it happened to be looked at; the frame
    that the system call, the work queue or the thread called stays the same.
    """
    context = _one_context(frames)
    anchors = name_list("anchors")
    end = next((number for number, frame in enumerate(context)
                if number and not frame.module and plain_name(frame) in anchors), len(context))
    forwarders = name_list("forwarders")
    own = [frame for frame in own_frames(context[:end]) if frame.module or plain_name(frame) not in forwarders]
    modules = [frame for frame in own if frame.module]
    chosen = (modules or own)[-1] if own else None
    if chosen is None:
        return choose(frames)
    return Choice(chosen, (f"chosen: {plain_name(chosen)}, the outermost own frame below "
                           f"{plain_name(context[end]) if end < len(context) else 'the end of the stack'}",))


def watched(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Cut off what ran on top of a CPU's code to look at it: the tick that noticed, the NMI that stopped the CPU.

    An interrupt that does anything else stays: it may be what the CPU hangs in.
    """
    lists = [name_list(name) for name in ("plumbing", "forwarders", "watchers")]
    for number, frame in enumerate(frames):
        if number and frame.interrupted and not frame.user:
            return frames[number:]
        if frame.module or (frame.symbol and not any(plain_name(frame) in names for names in lists)):
            return frames
    return frames


def context_of(frames: Sequence[Frame]) -> str | None:
    """Say in words what the code was run by: `a work queue (flaky_poll_work)`, `the system call write`."""
    number, words = _context_at(frames)
    if number is None:
        return None
    if words != "a system call":
        caller, called = frames[number], frames[number - 1]
        # What is left of a function that jumped on to the kernel's own is not what was called.
        own = called.module or not any(plain_name(called) in names for names in (
            name_list("plumbing"), name_list("anchors"), name_list("forwarders")))
        named = own and not _is_entry(caller) and plain_name(caller) != "worker_thread"
        return f"{words} ({plain_name(called)})" if named and plain_name(called) else words
    call = next((plain_name(item)[4:] for item in reversed(frames[:number])
                 if plain_name(item).startswith("sys_")), "")
    return f"the system call {call}" if call else words


def had_interrupted(frames: Sequence[Frame]) -> bool:
    """Tell whether what ran the code had interrupted the task: an interrupt, or what soft interrupts run behind one.

    They also run in a thread of their own (ksoftirqd), and where a task turns them on again.
    """
    number, words = _context_at(frames)
    if number is None or any(each in words for each in _OF_TASKS):
        return False
    if any(_is_entry(frame) or (frame.interrupted and not frame.user) for frame in frames[number:]):
        return True
    # Where the stack ends before it comes to the task's own code, nothing shows that it did not.
    return not any(words in contexts().get(plain_name(frame), "") for frame in frames[number:] for words in _OF_TASKS)


def _is_entry(frame: Frame) -> bool:
    return not frame.module and (frame.symbol or "").startswith(_INTERRUPTS)


def _context_at(frames: Sequence[Frame]) -> tuple[int | None, str]:
    """Return the place of the frame that called into a context, and what that is."""
    known = contexts()
    for number, frame in enumerate(frames):
        words = None if frame.module else known.get(plain_name(frame))
        if number and words and plain_name(frame) == "worker_thread":       # process_one_work() would run one
            return number, "the worker of a work queue, between two works"
        if number and (words or _is_entry(frame)):
            return number, words or "an interrupt"           # what it interrupted is another context
    return None, ""


def beside_soft(frames: Sequence[Frame]) -> Choice:
    """Choose the module on top of which a soft interrupt ran that shows none itself: it may have raised it."""
    chosen = choose(frames, past_soft=True)
    if chosen.frame is None or chosen.frame.module is None:
        return Choice(None, ())
    return Choice(chosen.frame, (*chosen.decisions, "by the stack it only turned soft interrupts on again"),
                  doubtful=True)


def _one_context(frames: Sequence[Frame], *, past_soft: bool = False) -> Sequence[Frame]:
    """Cut a stack where the next context begins: at the entry that interrupted other code."""
    seen_own = False
    plumbing = name_list("plumbing")
    for number, frame in enumerate(frames):
        name = frame.symbol or ""
        if seen_own and not frame.inline and name.startswith("asm_"):
            return frames[:number]
        if not past_soft and not frame.module and plain_name(frame) in _SOFT:
            return frames[:number + 1]
        seen_own = seen_own or bool(frame.symbol and (frame.module or plain_name(frame) not in plumbing))
    return frames


def _tell_skipped(frames: Sequence[Frame], own: Sequence[Frame], decisions: list[str]) -> None:
    skipped = []
    for frame in frames:
        if own and frame is own[0]:
            break
        if frame.symbol:
            skipped.append(plain_name(frame))
    if skipped:
        decisions.append("skipped as plumbing: " + ", ".join(skipped))

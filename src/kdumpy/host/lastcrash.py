"""The last crash: whether there was one, whether it left a dump, and why not if it did not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kdumpy.capture.config import CaptureConfig
from kdumpy.host import bootends, crashes, crashing, crashstate, history, images, need, seen
from kdumpy.host.bootends import BootEnd
from kdumpy.host.crashes import Crash
from kdumpy.host.crashing import Mark
from kdumpy.host.kernellog import said_at_boot
from kdumpy.host.seen import Seen
from kdumpy.host.system import System
from kdumpy.units import human_bytes, human_time

PSTORE = ("/sys/fs/pstore", "/var/lib/systemd/pstore")
"""Where the firmware's memory keeps the log's end; systemd-pstore moves it to the second at boot."""

CARD_RESET = 0x20
"""WDIOF_CARDRESET of a watchdog's bootstatus: it was this watchdog that reset the machine."""

_LARGEST = 4 << 20

_FAILED = re.compile(r"failed|cannot|no space|out of memory|killed|not inserted|ended early|not reached", re.IGNORECASE)
"""Lines of the capture's journal that say what went wrong."""

_MOUNTED = re.compile(r"/run/kdumpy/target-\S+(?: at 0x[0-9a-f]+)?: ")
"""Where the capture had a target mounted: of no use afterwards."""

_PANIC = re.compile(r"Kernel panic - not syncing|Oops[:#-]|BUG:|sysrq: Trigger a crash|watchdog: BUG|"
                    r"Unable to handle kernel|general protection fault")

_REASONS = re.compile(r"Previous system reset reason.*|System Reset Reason.*|BERT: Error records from previous boot.*")
"""What firmware and kernel say of the last reset, in the log of this boot."""


@dataclass(frozen=True, slots=True)
class LastCrash:
    """What is known of the last crash."""

    kind: str
    """`none` (no crash is known), `dumped`, `partly` (a part, or the log), `removed` (it left a dump, which is gone by
    now), `lost` (it left nothing), `elsewhere` (its dump would be on a target that is not on this host)."""
    at: float | None = None
    """Seconds since 1970, as near as it is known."""
    path: str = ""
    """The dump, or the folder."""
    cause: str = ""
    why: str = ""
    """Why there is no dump, or no whole one."""
    mend: str = ""
    evidence: tuple[str, ...] = ()
    """What else was seen: the firmware's log, a watchdog, how the boot ended."""


def look(system: System, config: CaptureConfig, cause_of: Callable[[str], str] = lambda log: "") -> LastCrash:
    """Find out.

    Args:
        system: the host.
        config: where dumps go.
        cause_of: tells the cause by the text of a kernel's log.

    Raises:
        HostError, OSError: something may not be read.
    """
    end = bootends.last_end(system)
    if end.clean is None:
        end = _by_our_record(system)
    known = seen.all_of(system)
    found = crashes.find(system, _places(config, known))
    newest = found[0] if found else None
    before = known[0] if known else None
    if before is not None and (newest is None or newest.at < before.at) and \
            (end.clean is not False or _of_boot(system, before, end)):
        return _removed(before)
    if newest is not None and (end.clean is not False or _of_boot(system, newest, end)):
        was = next((one for one in known if one.path == newest.path), None)
        if was is not None and was.state == "complete" != newest.state:
            return _removed(was)
        return _with_folder(system, newest, cause_of)
    if end.clean is not False:
        return LastCrash("none")
    saved = _pstore(system, end)
    test = _test(system, end)
    evidence = _evidence(system, end, saved, test)
    cause = cause_of(saved[1]) if saved else "`kdumpy test` crashed it" if test else ""
    at = saved[2] if saved else test.time if test else None
    last = history.last_of_earlier_boots(system)
    of_then = last.targets if last is not None and last.targets else config.targets
    remote = [url for url in of_then if not url.startswith(("/", "file:"))]
    if remote and _was_loaded(system, end):
        return LastCrash("elsewhere", at, cause=cause, evidence=evidence,
                         why=f"dumps went to {remote[0]}, and what lies there is not looked at",
                         mend="look there; kexec-dmesg.log beside the dump tells the capture's steps")
    why, mend = _why_lost(system, end, panicked=bool(saved or test))
    return LastCrash("lost", at, cause=cause, why=why, mend=mend, evidence=evidence)


def _places(config: CaptureConfig, known: tuple[Seen, ...]) -> tuple[str, ...]:
    """Return the directories where crashes may lie: today's targets, and those of crashes that were seen."""
    earlier = (one.path.rpartition("/")[0] for one in known)
    return tuple(dict.fromkeys((*crashes.folders(config), *filter(None, earlier))))


def _removed(was: Seen) -> LastCrash:
    """Tell of a crash that was there and whose dump is not any more."""
    left = {"complete": "it left a dump", "incomplete": "it left a part of a dump", "log": "it left the kernel's log",
            "nothing": "it left the capture's own log"}.get(was.state, "it was there")
    return LastCrash("removed", was.at, was.dump or was.path, was.cause,
                     f"{left}, {was.dump or was.path}, which was removed since", "")


def _of_boot(system: System, crash: Crash | Seen, end: BootEnd) -> bool:
    """Tell whether a crash ended the last boot."""
    # The capture kernel's clock is the hardware's: an hour off where that runs in local time.
    return crash.at >= (end.began or bootends.boot_time(system) - 86400)


def _with_folder(system: System, crash: Crash, cause_of: Callable[[str], str]) -> LastCrash:
    cause = cause_of(_text(system, crash.log)) if crash.log else ""
    if crash.state == "complete":
        return LastCrash("dumped", crash.at, crash.dump, cause)
    why, mend = why_not_whole(system, crash)
    return LastCrash("partly", crash.at, crash.dump or crash.path, cause, why, mend)


def why_not_whole(system: System, crash: Crash) -> tuple[str, str]:
    """Return what is missing of a crash that is not complete, why, and the mend: from the capture's own journal."""
    what = {"incomplete": "the dump is incomplete", "log": "only the kernel's log was saved",
            "nothing": "nothing but the capture's own log was saved"}[crash.state]
    lines = [line.partition("kdumpy: ")[2].strip() for line in _text(system, crash.journal).splitlines()
             if "kdumpy: " in line] if crash.journal else []
    wrong = [line for line in lines if _FAILED.search(line)]
    told = _MOUNTED.sub("", wrong[-1]) if wrong else ""
    return f"{what}: {told}" if told else what, _mend_for(told, crash)


def _mend_for(told: str, crash: Crash) -> str:
    """Return what helps against what the capture said went wrong."""
    if re.search(r"no space|full|quota", told, re.IGNORECASE):
        return "make room on the target, or name a second one; `kdumpy status` shows what a dump needs"
    if re.search(r"memory|signal 9|killed", told, re.IGNORECASE):
        return "reserve more memory: `kdumpy rehearse` measures it, crashkernel in /etc/kdumpy.toml sets it"
    if re.search(r"time|ended early", told, re.IGNORECASE):
        return "raise time_budget_s, or capture less (a higher level)"
    return f"{crash.journal or crash.path} tells every step" + \
        ("; `kdumpy repair` makes what is there readable" if crash.state == "incomplete" else "")


def _why_lost(system: System, end: BootEnd, *, panicked: bool) -> tuple[str, str]:
    """Return why the last boot left no dump, and the mend: what was loaded in it, and what else is known."""
    last = history.last_of_earlier_boots(system)
    if last is None or (end.began is not None and last.at < end.began - 60):
        return ("no capture kernel was loaded in that boot: `kdumpy load` was not run",
                "see to it that kdumpy.service is enabled: `kdumpy setup`")
    if last.event == "failed":
        return f"no capture kernel was loaded in that boot: {last.why}", last.mend
    if last.event == "unloaded":
        return (f"the capture kernel was unloaded at {human_time(int(last.at))}, before that boot ended",
                "nothing, if that was a shutdown that hung; else keep kdumpy.service running")
    if _watchdog(system):
        return ("a hardware watchdog reset the machine: the kernel hung without a panic, or the capture was slower "
                "than the watchdog", "let hangs panic (on_hard_lockup, on_soft_lockup in [panic]), and carry the "
                "watchdog's driver in the image (modules in [image])")
    wanted = need.look(system, crashstate.release(system), images.load(system, crashstate.release(system)))
    if wanted is not None and 0 < last.reserved < wanted.bytes:
        what = "cannot start" if last.reserved < wanted.least else "runs out of memory"
        return (f"{human_bytes(last.reserved)} were reserved in that boot, and {wanted.told} "
                f"{human_bytes(wanted.bytes)}: with so little the capture kernel {what}", need.GROW)
    if panicked:
        return ("the kernel panicked with the capture kernel loaded, and nothing reached the target: the capture "
                "kernel did not start, hung, or did not find the target",
                "`kdumpy rehearse` tries the same image in a virtual machine; a serial console shows how far it comes")
    return ("the capture kernel was loaded, and no panic is on record: power loss, a reset, a forced reboot, or a hang "
            "that did not panic", "let hangs panic (on_hard_lockup, on_soft_lockup in [panic] of /etc/kdumpy.toml); "
            "a reset button or a power loss leaves no trace")


def _was_loaded(system: System, end: BootEnd) -> bool:
    last = history.last_of_earlier_boots(system)
    return last is not None and last.event in ("loaded", "kept") and (end.began is None or last.at >= end.began - 60)


def _by_our_record(system: System) -> BootEnd:
    """Return how the last boot ended where the system itself keeps no record: a shutdown unloads the capture kernel."""
    last = history.last_of_earlier_boots(system)
    if last is None or last.event != "loaded":
        return BootEnd(None, None, "")
    began = min(event.at for event in history.events(system) if event.boot == last.boot)
    return BootEnd(began, False, history.PATH)


def _test(system: System, end: BootEnd) -> Mark | None:
    """Return the `kdumpy test` that ended the last boot."""
    mark, last = crashing.read_mark(system), history.last_of_earlier_boots(system)
    if mark is None or mark.boot_id == history.boot_id(system):
        return None
    of_it = last.boot == mark.boot_id if last is not None else end.began is not None and mark.time >= end.began - 60
    return mark if of_it else None


def _evidence(system: System, end: BootEnd, saved: tuple[str, str, float] | None, test: Mark | None) -> tuple[str, ...]:
    told = [f"the last boot{f', begun {human_time(int(end.began))},' if end.began else ''} ended without a shutdown "
            f"({end.source})"]
    if test:
        told.append(f"`kdumpy test` crashed it at {human_time(test.time)}")
    if saved:
        told.append(f"the end of its log is in {saved[0]}")
    told += [f"{name} says that it reset the machine" for name in _watchdog(system)]
    reason = said_at_boot(system, _REASONS.pattern)
    if reason:
        told.append(f"the kernel says: {reason}")
    return tuple(told)


def _watchdog(system: System) -> list[str]:
    """Return the watchdogs that reset the machine."""
    found = []
    for path in system.glob("/sys/class/watchdog/watchdog*/bootstatus"):
        text = system.value(path) or "0"
        if text.isdecimal() and int(text) & CARD_RESET:
            found.append(system.value(path.replace("bootstatus", "identity")) or path)
    return found


def _pstore(system: System, end: BootEnd) -> tuple[str, str, float] | None:
    """Return path, text and time of the last boot's panic in the firmware's memory."""
    newest: tuple[str, str, float] | None = None
    for place in PSTORE:
        for path in (*system.glob(f"{place}/dmesg*"), *system.glob(f"{place}/*/dmesg*"),
                     *system.glob(f"{place}/*/*/dmesg*")):
            at = system.path(path).stat().st_mtime
            if (end.began is not None and at < end.began) or (newest is not None and at <= newest[2]):
                continue
            text = _text(system, path)
            if _PANIC.search(text):
                newest = path, text, at
    return newest


def _text(system: System, path: str) -> str:
    with system.path(path).open(errors="replace") as file:
        return file.read(_LARGEST)

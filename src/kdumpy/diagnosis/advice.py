"""What to do next, whatever the cause: update or unload, whom to report to, how to see more."""

from __future__ import annotations

import re
import shlex

from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.reading import Pointee
from kdumpy.diagnosis.model import Culprit
from kdumpy.kernel.values import Module

# What a kernel's release or build line has -> where its bugs are reported.
_TRACKERS = (
    (r"\bUbuntu\b", "Ubuntu (ubuntu-bug linux)"),
    (r"\bDebian\b|\+deb\d+|-cloud-(?:amd|arm)64$", "Debian (reportbug linux-image-{release})"),
    (r"\.fc\d+\.", "Fedora (bugzilla.redhat.com, component kernel)"),
    (r"\.el\d+(?:_\d+)?\.", "the distribution (Red Hat's is issues.redhat.com)"),
    (r"-default\b", "SUSE (bugzilla.suse.com; openSUSE: bugzilla.opensuse.org)"),
    (r"-arch\d+", "Arch Linux (gitlab.archlinux.org, package linux)"),
)
_ANYWHERE = "the distribution, or bugzilla.kernel.org for a kernel of your own"


def general_advice(crash: Crash, culprit: Culprit | None) -> list[str]:
    """Return what to do about a culprit, in sentences."""
    advice = []
    if culprit:
        module = crash.modules.get(culprit.module) if culprit.module else None
        foreign = crash.is_foreign(culprit.module) if culprit.module else False
        if culprit.module and not culprit.function and not culprit.variable:
            advice.append(f"Do not unload the module {culprit.module} before it is mended; report this to its vendor, "
                          "or where it is part of the kernel, to the distribution.")
        elif culprit.module and (foreign or (foreign is None and crash.kernel)):
            name = shlex.quote(culprit.module)
            words = _module_words(module) if module else culprit.module
            advice.append(f"Update the module {words}, or unload it until its vendor has mended it. "
                          + ("It is not part of the kernel: report this to its vendor." if foreign else
                             "If it is not part of the kernel (modinfo says `intree: Y` where it is), report this to "
                             "its vendor.")
                          + f" On that host, `modinfo {name}` names the author, and `dpkg -S $(modinfo -n {name})`, or "
                            "`rpm -qf` of the same, the package.")
        else:
            release, build = "", ""
            if crash.kernel:
                release, build = crash.kernel.system.release or "", crash.kernel.system.version or ""
            advice.append(f"Look whether a newer kernel mends {culprit.module or 'this'}; if not, report it with the "
                          f"signature above to {tracker(release, build)}.")
    if culprit and culprit.function and not culprit.source and crash.kernel and not crash.kernel.debuginfo.dwarf:
        # No server of debug symbols has those of a module that was built elsewhere.
        own = culprit.module and crash.is_foreign(culprit.module)
        advice.append("For lines of source, give the module's own file with debug symbols beside the kernel's: "
                      f"--vmlinux VMLINUX --vmlinux {culprit.module}.ko."
                      if own else "For lines of source, give debug symbols: --vmlinux FILE, or --dwarf fetch.")
    return advice


def tracking_advice(crash: Crash, place: Pointee | None) -> list[str]:
    """Return how to learn who frees an object; nothing where the allocator was told to remember, and has said it.

    Args:
        crash: the crash.
        place: the object, where it is known.
    """
    if place is not None and any(track.event == "freed" for track in place.tracks):
        return []
    cmdline = crash.kernel.system.cmdline or "" if crash.kernel else ""
    # mm/slub.c, setup_slub_debug(): no letters stand for all of them; what follows a comma names the caches.
    option = re.search(r"\bslub_debug(?:=([A-Za-z]*)(?:,(\S+))?)?(?=\s|$)", cmdline)
    if option and not option[2] and (not option[1] or "U" in option[1].upper()):
        return ["A kernel with KASAN says who freed the object."]
    return ["Boot with slub_debug=FZPU (or a kernel with KASAN): the next crash then also says who freed the object."]


def tracker(release: str, build: str) -> str:
    """Return where the bugs of a kernel are reported, told by its release and its build line (uname -r, -v)."""
    for pattern, where in _TRACKERS:
        if re.search(pattern, build) or re.search(pattern, release):
            return where.format(release=release)
    return _ANYWHERE


def _module_words(module: Module) -> str:
    """Return `name 1.4 (srcversion 5F3C…)`: what its vendor asks for."""
    version = f" {module.version}" if module.version else ""
    return module.name + version + (f" (srcversion {module.source_version})" if module.source_version else "")

"""Load the capture kernel: a fresh image, the right command line, the system call, and a look whether it is there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from kdumpy.errors import HostError, KdumpyError
from kdumpy.host import cmdline, crashstate, history, images, kernelfile, kexecerrors, loadcalls
from kdumpy.host.kernelfile import KernelFile
from kdumpy.host.kernellog import KernelLog
from kdumpy.host.kexecerrors import Attempt
from kdumpy.host.loadcalls import RUN, Say
from kdumpy.host.settings import Settings
from kdumpy.host.system import System
from kdumpy.units import human_bytes

_MEMORY, _CPUS = "the machine's memory", "the machine's set of CPUs"

RECORD = f"{RUN}/loaded.json"
"""What was loaded: the kernel tells only that something is. Gone with the next boot, as the loaded kernel is."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A capture kernel in the reserved memory."""

    release: str
    kernel: str
    """Path of the kernel's image."""
    image: str
    """Path of the capture image."""
    cmdline: str
    """As given; the kernel adds elfcorehdr=."""
    call: str
    """`kexec_file_load`, `kexec_load`, or `kexec-tools`; why not the first stands in `note`."""
    reserved: int
    """Bytes of reserved memory."""
    made_of: dict[str, str]
    """State of both files, and of the memory and CPUs that a dump has to hold: whether it would be the same again."""
    at: float
    """When, in seconds since 1970."""
    changed: bool = True
    """It was loaded just now; False: it had been."""
    built: str = ""
    """Why the image was built anew; empty: it was fresh."""
    note: str = ""
    complaint: str = ""
    """What kexec-tools said though they called it done: the dump may not be what it should."""


def load(system: System, settings: Settings, say: Say = lambda line: None, *, build: bool = True,
         again: bool = False, call: str = "") -> Loaded:
    """Load the capture kernel, with a fresh image; when just that is loaded already, nothing is done.

    Args:
        system: the running system.
        settings: the host's settings.
        say: is told what is done.
        build: build the image anew where it is stale.
        again: load it even if it is loaded.
        call: `kexec_file_load` or `kexec_load`, to have just that; empty: the first, or where this kernel lacks it the
            second.

    Raises:
        HostError: it cannot be loaded; why, and the mend.
        UsageError: the command line is too long.
    """
    try:
        try:
            done = _load(system, settings, say, build=build, again=again, call=call)
        except OSError as error:
            raise HostError("the capture kernel cannot be loaded", where=str(error.filename or ""),
                            why=error.strerror or str(error)) from error
    except KdumpyError as error:
        # Where another one is loaded still, a crash is saved by that.
        if not crashstate.look(system).loaded:
            history.note(system, "failed", f"{error.what}: {error.why}" if error.why else error.what, error.mend)
        raise
    if not done.changed:
        say(f"the capture kernel is loaded already: {done.release}, {human_bytes(done.reserved)} reserved")
    return done


def _load(system: System, settings: Settings, say: Say, *, build: bool, again: bool,
          call: str) -> Loaded:
    """Do as `load`; a failure is not written down yet."""
    release, running = target_release(system, settings), crashstate.release(system)
    _refuse_at_once(system, running)
    with locked(system):
        stale = images.stale(system, settings, release)
        first = _older(system, settings, release, say, stale, call) if stale and build else None
        built = _fresh(system, settings, release, say, stale, build=build, armed=first is not None)
        if first is not None and not built:
            return first
        wanted = replace(_wanted(system, settings, release), built=built)
        there = loaded_now(system)
        if there is not None and not again and not _difference(system, there, wanted):
            return replace(there, changed=False)
        return _put(system, wanted, () if stale and not built else settings.capture.targets, say, call)


def _put(system: System, wanted: Loaded, targets: tuple[str, ...], say: Say, call: str) -> Loaded:
    """Load what is wanted, look whether it is there, and write it down.

    Args:
        system: the host.
        wanted: what is to be loaded.
        targets: where its image saves dumps, as configured when it was built; empty: as what was loaded before.
        say: is told what is done.
        call: as `load` takes it.
    """
    size = system.path(wanted.image).stat().st_size
    attempt = Attempt("kexec_file_load", kernel=kernelfile.find(system, wanted.release), initrd=wanted.image,
                      initrd_bytes=size, release=crashstate.release(system))
    _refuse_hopeless(system, attempt)
    lost = crashstate.look(system).loaded
    try:
        used, note, complaint = loadcalls.put(system, attempt, wanted.cmdline, say, call)
    except HostError as error:
        system.path(RECORD).unlink(missing_ok=True)
        if lost and not crashstate.look(system).loaded:
            raise HostError(error.what, where=error.where, mend=error.mend,
                            why=f"{error.why}; the capture kernel that was loaded before is gone") from error
        raise
    done = replace(wanted, call=used, note=note, complaint=complaint)
    _check(system, done)
    _remember(system, done)
    history.note(system, "loaded", reserved=done.reserved, targets=targets or history.last_targets(system))
    say(f"loaded {done.release} with {human_bytes(size)} of image into {human_bytes(done.reserved)} of reserved "
        f"memory ({done.call})")
    if complaint:
        say(f"warning: kexec-tools say: {complaint}")
    return done


def _older(system: System, settings: Settings, release: str, say: Say, stale: str, call: str) -> Loaded | None:
    """Load an image that is not fresh where nothing is loaded, before minutes go into a new one; None: it cannot be.

    This kernel's own first, else the newest that another kernel has left here: the capture asks the dump what kernel
    it is of, not its own.
    """
    if crashstate.look(system).loaded:
        return None
    for candidate in _releases(system, release):
        say(f"the image of {candidate} is loaded until there is a new one: {stale}")
        try:
            return _put(system, _wanted(system, settings, candidate), (), say, call)
        except (KdumpyError, OSError) as error:
            say(f"it cannot be: {error}")
    return None


def _releases(system: System, release: str) -> list[str]:
    """Return the kernels of which an image is there: the wanted one, then others, the newest image first."""
    found = {images.release_of(path): system.path(path).stat().st_mtime for path in system.glob(images.path_of("*"))}
    return sorted(found, key=lambda name: (name != release, -found[name]))


def changed(system: System, settings: Settings, release: str, there: Loaded) -> str:
    """Return what would be loaded otherwise now than it was, in words; empty: nothing.

    Raises:
        HostError: the kernel or the image is not there any more.
    """
    return _difference(system, there, _wanted(system, settings, release))


def _wanted(system: System, settings: Settings, release: str) -> Loaded:
    """Return what is to be loaded."""
    kernel = kernelfile.find(system, release)
    image = images.path_of(release)
    if not system.exists(image):
        raise HostError("there is no capture image", where=image, mend="build it: `kdumpy image`, or `kdumpy load`")
    return Loaded(release, kernel.path, image, cmdline_for(system, settings, kernel), "kexec_file_load",
                  crashstate.look(system).reserved, _made_of(system, kernel.path, image), round(time.time(), 3))


def _difference(system: System, there: Loaded, wanted: Loaded) -> str:
    if there.release != wanted.release:
        return f"it is of kernel {there.release}, wanted is {wanted.release}"
    for name, state in wanted.made_of.items():
        if there.made_of.get(name) != state and name not in _followed(system):
            return f"{name} changed since"
    if there.cmdline != wanted.cmdline:
        return "its command line is another one"
    return "" if there.reserved == wanted.reserved else "the reserved memory has another size"


def unload(system: System, say: Say = lambda line: None) -> bool:
    """Take the capture kernel out; return whether there was one.

    Raises:
        HostError: the kernel refuses; why, and the mend.
    """
    _refuse_at_once(system, crashstate.release(system), unload=True)
    with locked(system):
        state = crashstate.look(system)
        if not state.loaded:
            say("no capture kernel is loaded")
            return False
        attempt = Attempt("kexec_file_load", unload=True, release=crashstate.release(system))
        with KernelLog(system) as log:
            try:
                loadcalls.patiently(lambda: loadcalls.take_out(system))
            except OSError as error:
                refused = kexecerrors.explain(system, error.errno or 0, attempt, log.about_loading())
                history.note(system, "kept", refused.why)
                raise refused from error
        if crashstate.look(system).loaded:
            raise HostError("the capture kernel is still loaded", where=f"/sys/kernel/{crashstate.LOADED}",
                            why="the kernel took the call and did nothing", mend="try again")
        system.path(RECORD).unlink(missing_ok=True)
    history.note(system, "unloaded")
    say("the capture kernel is unloaded: the next panic leaves no dump")
    return True


def target_release(system: System, settings: Settings) -> str:
    """Return the release of the capture kernel: the configured one, else the running one."""
    return settings.image.kernel or crashstate.release(system)


def cmdline_for(system: System, settings: Settings, kernel: KernelFile) -> str:
    """Return the capture kernel's command line for this machine.

    Raises:
        UsageError: it is longer than the capture kernel takes.
    """
    architecture = system.value("/proc/sys/kernel/arch") or platform.machine()
    text = cmdline.capture_cmdline(system.value("/proc/cmdline") or "", architecture,
                                   append=settings.image.cmdline_append, remove=settings.image.cmdline_remove,
                                   further=_quirks(system))
    if architecture == "aarch64" and system.value("/sys/class/dmi/id/bios_vendor") == "Amazon EC2":
        # There irqpoll may lose a device that is plugged in (kdump-utils, is_aws_aarch64).
        text = " ".join(word for word in cmdline.words(text) if word != "irqpoll")
    if architecture == "x86_64" and cmdline.value_of(text, "nr_cpus") != "1":
        text = _without_boot_cpu(system, text)
    cmdline.check_length(text, kernel.cmdline_bytes)
    return text


def loaded_now(system: System) -> Loaded | None:
    """Return what is loaded, if this program did it and it still is; else None.

    Raises:
        HostError: its record may not be read.
    """
    if not crashstate.look(system).loaded:
        return None
    try:
        values = json.loads(system.read(RECORD) or "")
        return Loaded(**values)
    except (ValueError, TypeError):
        return None


@contextmanager
def locked(system: System) -> Iterator[None]:
    """Let one process at a time load and unload; the kernel would answer EBUSY to the other."""
    folder = system.path(RUN)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise HostError("cannot keep others from loading", where=f"{RUN}/lock", why=error.strerror or str(error),
                        mend="run it as root") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fresh(system: System, settings: Settings, release: str, say: Say, stale: str, *, build: bool,
           armed: bool) -> str:
    """See to it that there is an image; return why it was built anew.

    Args:
        system: the host.
        settings: its settings.
        release: the capture kernel.
        say: is told what is done.
        stale: why the image is not fresh; empty: it is.
        build: it is to be built.
        armed: an older one is loaded meanwhile, and stays where this one cannot be built.
    """
    if not stale:
        return ""
    there = system.exists(images.path_of(release))
    if build:
        say(f"the capture image is built anew: {stale}")
        try:
            images.build(system, settings, release, say)
        except (KdumpyError, OSError) as error:
            # An older one saves most crashes; none saves nothing. At boot the network may not be up yet, or the disk
            # that a crash has filled is full.
            if not there and not armed:
                raise
            say(f"it cannot be built now ({error}): the older one is loaded as it is")
            return ""
        return stale
    if not there:
        raise HostError("there is no capture image", where=images.path_of(release), why=stale,
                        mend="build it: `kdumpy image`, or `kdumpy load` without --no-build")
    say(f"the capture image is not fresh, and is loaded as it is: {stale}")
    return ""


def _refuse_at_once(system: System, running: str, *, unload: bool = False) -> None:
    """Raise where nothing can be loaded whatever the image: before time is spent on building one."""
    state = crashstate.look(system)
    attempt = Attempt("kexec_file_load", unload=unload, release=running)
    if not state.supported:
        raise kexecerrors.explain(system, errno.ENOSYS, attempt)
    if not crashstate.may_boot(system):
        raise kexecerrors.explain(system, errno.EPERM, attempt)
    if not state.reserved and not unload:
        raise kexecerrors.explain(system, errno.EADDRNOTAVAIL, attempt)


def _refuse_hopeless(system: System, attempt: Attempt) -> None:
    """Raise before the call where it cannot go well: a failed load throws away what is loaded."""
    state = crashstate.look(system)
    size = attempt.initrd_bytes + (attempt.kernel.memory if attempt.kernel else 0)
    if state.disabled or state.loads_left == 0:
        raise kexecerrors.explain(system, errno.EPERM, attempt)
    if size > state.reserved:
        raise kexecerrors.explain(system, errno.EADDRNOTAVAIL, attempt)


def _check(system: System, done: Loaded) -> None:
    """Read back that it is there: a call that returns is not enough."""
    state = crashstate.look(system)
    if not state.loaded:
        raise HostError("the capture kernel is not loaded", where=f"/sys/kernel/{crashstate.LOADED}",
                        why=f"{done.call} said that it went well, and the kernel says 0",
                        mend="see the kernel's log, `dmesg`")


def _remember(system: System, done: Loaded) -> None:
    path = system.path(RECORD)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(asdict(done), indent=1) + "\n")
    partial.replace(path)


def _made_of(system: System, *paths: str) -> dict[str, str]:
    """Return what changes when a file does, or the machine: memory and CPUs that come and go."""
    states = ((path, system.path(path).stat()) for path in paths)
    found = {path: f"{state.st_size} {state.st_mtime_ns} {state.st_ino}" for path, state in states}
    memory = "\n".join(line for line in (system.value("/proc/iomem") or "").splitlines()
                       if line.endswith(": System RAM"))
    return {**found, _MEMORY: hashlib.sha256(memory.encode()).hexdigest()[:16],
            _CPUS: system.value("/sys/devices/system/cpu/present") or ""}


def _followed(system: System) -> set[str]:
    """Return what the kernel itself keeps right in what is loaded (6.6, "crash: memory and CPU hotplug sysfs
    attributes"); it says so only while something is loaded.
    """
    return {name for name, folder in ((_MEMORY, "memory"), (_CPUS, "cpu"))
            if system.value(f"/sys/devices/system/{folder}/crash_hotplug") == "1"}


def _quirks(system: System) -> list[str]:
    """Return parameters for this machine's watchdogs: their pretimeout would panic the capture kernel."""
    drivers = {system.path(path).resolve().name
               for path in system.glob("/sys/class/watchdog/watchdog*/device/driver/module")}
    found = [f"{driver}.pretimeout=0" for driver in sorted(drivers)]
    return [*found, *(["hpwdt.kdumptimeout=0"] if "hpwdt" in drivers else [])]


def _without_boot_cpu(system: System, text: str) -> str:
    """Forbid the CPU that booted: woken by another one it resets the machine. (kdump.rst, disable_cpu_apicid)"""
    for line in (system.value("/proc/cpuinfo") or "").splitlines():
        if line.startswith("initial apicid"):
            return f"{text} disable_cpu_apicid={line.partition(':')[2].strip()}"
    return text

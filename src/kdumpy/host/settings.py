"""/etc/kdumpy.toml: the one configuration of a host, on every distribution. Its keys are the fields below."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from kdumpy.capture import declared
from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.declared import doc, key, wrong
from kdumpy.errors import KdumpyError, UsageError
from kdumpy.host.system import System

PATH = "/etc/kdumpy.toml"

DEFAULT_TARGETS = ("/var/crash",)

BUILDERS = ("auto", "builtin", "initramfs-tools", "dracut", "mkinitcpio")

HEAD = """\
# kdumpy: what this host does when its kernel panics. `kdumpy setup` applies it, `kdumpy status` checks it.
# Every key is here with its value; one that is left out has the default.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panic:
    """When the kernel is to panic, and what then."""

    reboot_s: int = key("seconds until a panic without a capture reboots; 0: it stays (kernel.panic)", 10, least=0,
                        most=3600)
    on_oops: bool = key("an oops is a panic: the kernel's state is not to be trusted (kernel.panic_on_oops)", True)
    on_hung_task: bool = key("a task that waits for two minutes is a panic (kernel.hung_task_panic)", False)
    on_soft_lockup: bool = key("a CPU that runs one task for 20 s in the kernel is a panic (kernel.softlockup_panic)",
                               False)
    on_hard_lockup: bool = key("a CPU that takes no interrupts is a panic (kernel.hardlockup_panic)", True)
    on_rcu_stall: bool = key("a stalled grace period is a panic (kernel.panic_on_rcu_stall)", False)
    on_unknown_nmi: bool = key("an NMI of unknown origin is a panic: for machines with an NMI button "
                               "(kernel.unknown_nmi_panic)", False)
    on_out_of_memory: bool = key("a system out of memory panics instead of killing a process (vm.panic_on_oom)", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The capture image and kernel."""

    builder: str = key("who builds the image: builtin (plain disks), initramfs-tools, dracut, mkinitcpio; auto: the "
                       "builtin one where it can reach the targets, else the distribution's", "auto", choices=BUILDERS)
    kernel: str = key("release of the capture kernel; empty: the running one", "")
    modules: tuple[str, ...] = key("further kernel modules for the image", ())
    cmdline_append: str = key("further parameters of the capture kernel", "")
    cmdline_remove: str = key("parameters that the capture kernel does not get, by name", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which dumps are kept; the newest is never removed."""

    keep: int = key("dumps that are kept; 0: any number", 5, least=0, most=100_000)
    max_age_days: int = key("dumps that are older are removed; 0: none", 0, least=0, most=36_500)
    min_free_percent: int = key("dumps are removed, oldest first, until this part of the file system is free", 10,
                                least=0, most=95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is done with a new dump after the reboot."""

    at_boot: bool = key("say why it crashed, in files beside the dump and in the journal", True)
    html: bool = key("write the report as a page, too", True)
    motd: bool = key("say it at the next log-ins (message of the day)", True)
    notify: tuple[str, ...] = key("whom to tell: `mailto:root`, `https://…` (a POST of JSON), or any address that "
                                  "apprise knows, where it is installed", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of /etc/kdumpy.toml."""

    crashkernel: str = key("memory that is reserved for the capture kernel: auto, or as the kernel takes it (256M, "
                           "`2G-64G:256M,64G-:512M`, `512M,high`, or with its low part `512M,high 128M,low`)", "auto")
    capture: CaptureConfig = field(default_factory=lambda: CaptureConfig(targets=DEFAULT_TARGETS),
                                   metadata=doc("What is saved, where to, and how."))
    image: Image = field(default_factory=Image, metadata=doc("The capture kernel and its image."))
    panic: Panic = field(default_factory=Panic, metadata=doc("What is a panic. Applied as sysctls."))
    retention: Retention = field(default_factory=Retention,
                                 metadata=doc("Which dumps are kept: `kdumpy prune`, once a boot."))
    report: Report = field(default_factory=Report, metadata=doc("After a crash."))

    def __post_init__(self) -> None:
        """Check the keys of this level; tables have checked their own."""
        declared.check(self)
        for name in ("panic", "image", "retention", "report"):
            declared.check(getattr(self, name))
        parts = self.crashkernel.split()
        kinds = sorted(part.rpartition(",")[2] for part in parts)
        if self.crashkernel != " ".join(parts) or not parts or (len(parts) > 1 and kinds != ["high", "low"]):
            raise wrong("crashkernel", f"is {self.crashkernel!r}", "auto, or a size such as 256M")


def parse(text: str, *, where: str = PATH) -> Settings:
    """Read and check a file's text.

    Raises:
        UsageError: it is not TOML, or a key is unknown or wrong; it says which.
    """
    try:
        values: dict[str, Any] = tomllib.loads(text)
        capture = values.get("capture")
        if isinstance(capture, Mapping):
            values["capture"] = {"targets": list(DEFAULT_TARGETS), **capture}
        return declared.from_values(Settings, values)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the configuration is not TOML", where=where, why=str(error)) from error
    except KdumpyError as error:
        raise UsageError(error.what, where=where, why=error.why, mend=error.mend) from error


def load(system: System) -> Settings:
    """Return the host's settings; the defaults where there is no file.

    Raises:
        HostError: the file cannot be read.
        UsageError: as `parse`.
    """
    text = system.read(PATH)
    return Settings() if text is None else parse(text)


def update(text: str, settings: Settings) -> str:
    """Return a file's text with the keys changed that differ from `settings`; comments and order stay.

    Raises:
        UsageError: as `parse`, for the text that is there.
    """
    before = parse(text)
    for table, name in _differences(before, settings):
        holder = getattr(settings, table) if table else settings
        text = _with_key(text, table, name, declared.toml(getattr(holder, name)))
    try:
        same = parse(text) == settings
    except UsageError:
        same = False
    return text if same else render(settings)     # a layout that lines do not catch, such as a list over several


def _differences(before: Settings, after: Settings) -> list[tuple[str, str]]:
    found = []
    for one in fields(Settings):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if is_dataclass(new):
            found += [(one.name, inner.name) for inner in fields(new)
                      if getattr(old, inner.name) != getattr(new, inner.name)]
        elif old != new:
            found.append(("", one.name))
    return found


def _with_key(text: str, table: str, name: str, value: str) -> str:
    """Return the text with one key's line replaced, or added at the end of its table."""
    lines = text.splitlines()
    here, last = "", -1
    for number, line in enumerate(lines):
        head = re.match(r"\s*\[([^\]]+)\]", line)
        if head:
            here = head[1].strip()
        if here != table:
            continue
        if re.match(rf"\s*{name}\s*=", line):
            lines[number] = f"{name} = {value}"
            return "\n".join(lines) + "\n"
        if line.strip() or head:
            last = number
    if table and last < 0:
        lines += ["", f"[{table}]"]
        last = len(lines) - 1
    lines.insert(last + 1, f"{name} = {value}")
    return "\n".join(lines) + "\n"


def render(settings: Settings) -> str:
    """Return settings as the documented file, which `parse` reads back to the same."""
    return HEAD + declared.render(settings, documented=True)

"""Make real dumps: boot a kernel, bring a chosen fault about, fetch what kdump took, keep it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kdumpy.errors import LaboratoryError
from kdumpy.vm import capturing, guest, kernels, toolchain
from kdumpy.vm.architectures import AMD64
from kdumpy.vm.faults import FAULTS, Fault
from kdumpy.vm.kernels import Kernel
from kdumpy.vm.packages import run
from kdumpy.vm.paths import laboratory_home, locked, room_for_a_guest
from kdumpy.vm.qemu import Disk, Hardware, Machine
from kdumpy.vm.scoring import SCORING
from kdumpy.vm.scoring2 import SCORING_2
from kdumpy.vm.scoring3 import SCORING_3
from kdumpy.vm.scoring4 import SCORING_4
from kdumpy.vm.scoring5 import SCORING_5

KNOWN = {**FAULTS, **SCORING, **SCORING_2, **SCORING_3, **SCORING_4, **SCORING_5}
"""Every fault by its name: those that the tests want, and those that only the score does."""

RECIPE_VERSION = 2
"""Raised when this part changes how a guest is made, so that dumps are made again."""

ATTEMPTS = 2
"""Boots before giving up: an emulated guest on a busy machine can miss a deadline."""

BOOT_SECONDS = 120
"""From power on to the trigger; 8 s on an idle machine without KVM."""

CAPTURE_SECONDS = 180
"""From the panic to power off; 9 s on an idle machine without KVM."""

FOREIGN_PATIENCE = 3
"""How many times longer everything may take on a processor that is not ours, and that KVM never runs."""

NO_DUMP = "kdumpy: no whole dump was saved"
"""What the ladder of the capture image says when that is so."""

Progress = Callable[[str], None]
Compression = Literal["zstd", "lzo", "zlib", "none"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a dump looks like."""

    kernel: Kernel
    fault: Fault
    memory_mib: int = 640
    crashkernel: str = "192M"
    level: int = 31
    """The dump level: bits 1 zero, 2 cache, 4 cache private, 8 user, 16 free."""
    compress: Compression = "zstd"
    bare: bool = False
    """Without the processes, mounts and sockets that make a guest look lived in."""
    programs: tuple[Path, ...] = ()
    """Further programs of the guest, in its /bin; what they do is told by their names (they hold a hash)."""
    spare_mib: int = 0
    """Size of an empty ext4 file system that the trigger may mount (LABEL=spare)."""

    def key(self) -> str:
        """Return a hash of the recipe, the driver's source and the guest's init: 12 hex digits."""
        facts = [RECIPE_VERSION, self.describe(), guest.MODULES, guest.OPTIONAL_MODULES]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        digest.update(guest.INIT.read_bytes())
        digest.update(toolchain.source_hash().encode())
        if self.fault.before_init:
            digest.update(guest.MODPROBE.read_bytes())
        if self.fault.driver != "flaky":
            digest.update(toolchain.source_hash(self.fault.driver).encode())
        return digest.hexdigest()[:12]

    def describe(self) -> dict[str, object]:
        """Return the recipe as JSON values: what is done, not what is expected of a diagnosis."""
        fault = self.fault
        more: dict[str, object] = {"programs": [path.name for path in self.programs], "spare_mib": self.spare_mib}
        if not self.programs:           # as before there were any: dumps that are there stay
            more = {}
        if fault.monitor_after:
            more["monitor_after"] = fault.monitor_after
        of_fault = {name: value for name in ("modules", "programs", "hardware") if (value := getattr(fault, name))}
        return {"kernel": asdict(self.kernel), "memory_mib": self.memory_mib, "crashkernel": self.crashkernel,
                "level": self.level, "compress": self.compress, "bare": self.bare,
                "fault": {"name": fault.name, "trigger": fault.commands(), "sysctls": dict(fault.sysctls),
                          "boot": fault.boot, "monitor": fault.monitor, "as_init": fault.as_init,
                          "method": fault.method, **of_fault, **more}}


@dataclass(frozen=True)
class LabDump:
    """A dump of the laboratory."""

    path: Path
    """The vmcore."""
    console: Path
    """What both kernels printed on the serial console."""
    dmesg: Path
    """The dead kernel's log, vmcore-dmesg.txt of the capture; absent from live dumps."""
    driver: Path
    """The faulty driver, with DWARF."""
    kernel: str
    """The kernel's name in the laboratory: "6.1"."""
    release: str
    """As `uname -r` says it."""
    fault: Fault
    """What was done, and what a diagnosis must find."""
    level: int
    """The dump level that it was taken with."""
    seconds: float
    """How long it took, from power on to power off."""


def dump(kernel: str, fault: str, *, progress: Progress = lambda message: None, fresh: bool = False,
         recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe) -> LabDump:
    """Return the dump of a fault on a kernel, from the cache or from a new boot (about 20 s).

    Args:
        kernel: a name of kernels.LINES: "5.10", "6.1", "6.12", "newest".
        fault: a name of KNOWN.
        progress: is told what is going on, a line at a time.
        fresh: make it again even when the cache has it.
        recipe: changes the default recipe, with dataclasses.replace.

    Raises:
        LaboratoryError: a name is unknown, or the guest did not do what the recipe says.
        HostError: a program is missing.
    """
    if fault not in KNOWN:
        raise LaboratoryError("no such fault", why=fault, mend="python -m kdumpy.vm list")
    plan = recipe(default_recipe(_kernel(kernel, fault), KNOWN[fault]))
    directory = _directory(plan)
    with locked(f"dump-{plan.kernel.release}-{directory.name}"):
        if fresh or not (directory / "recipe.json").exists():
            _make(plan, directory, progress)
    facts = json.loads((directory / "recipe.json").read_text())
    return LabDump(path=directory / "vmcore", console=directory / "console.log", dmesg=directory / "dmesg",
                   driver=directory / f"{plan.fault.driver}.ko", kernel=kernel, release=plan.kernel.release,
                   fault=plan.fault, level=plan.level, seconds=facts["seconds"])


def is_made(kernel: str, fault: str, *, recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe) -> bool:
    """Tell whether `dump` would find this dump, and make none."""
    plan = recipe(default_recipe(_kernel(kernel, fault), KNOWN[fault]))
    return (_directory(plan) / "recipe.json").exists()


def _kernel(name: str, fault: str) -> Kernel:
    return kernels.get(name, flavour=KNOWN[fault].flavour)


def default_recipe(kernel: Kernel, fault: Fault) -> Recipe:
    """Return the recipe that a dump is made by when nothing else is said."""
    if fault.method != "kdump":
        return Recipe(kernel, fault, memory_mib=256, crashkernel="", level=0, compress="none")
    return Recipe(kernel, fault)


def _directory(plan: Recipe) -> Path:
    return laboratory_home() / "dumps" / plan.kernel.release / f"{plan.fault.name}-{plan.key()}"


def prune() -> int:
    """Delete the dumps that no default recipe makes any more, and logs of failures; return the bytes freed."""
    plans = [default_recipe(kernel, fault) for name in kernels.LINES for fault in KNOWN.values()
             if (kernel := kernels.remembered(name, fault.flavour))]
    wanted = {_directory(plan) for plan in plans}
    freed = 0
    for path in (laboratory_home() / "dumps").glob("*/[!.]*"):
        if path in wanted:
            continue
        freed += sum(file.stat().st_size for file in [path, *path.rglob("*")])
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return freed


def _make(plan: Recipe, directory: Path, progress: Progress) -> None:
    progress(f"building the driver for {plan.kernel.release}…")
    drivers = [toolchain.build_driver(plan.kernel, name) for name in sorted({"flaky", plan.fault.driver})]
    failure: LaboratoryError | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            progress(f"trying again: {failure}")
        with _workplace(directory) as work:
            try:
                with room_for_a_guest():
                    started = time.monotonic()
                    _boot(plan, drivers, work, progress)
                    seconds = round(time.monotonic() - started, 1)
            except LaboratoryError as error:
                where = _keep_console(work, directory) or error.where
                failure = LaboratoryError(error.what, where=where, why=error.why, mend=error.mend)
                continue
            for driver in drivers:
                shutil.copyfile(driver, work / driver.name)
            facts = {**plan.describe(), "seconds": seconds, "bytes": (work / "vmcore").stat().st_size}
            (work / "recipe.json").write_text(json.dumps(facts, indent=1) + "\n")
            shutil.rmtree(directory, ignore_errors=True)
            work.rename(directory)
            return
    assert failure is not None
    raise failure


@contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    """Give a directory beside the final one; it is gone afterwards unless it was renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=directory.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep_console(work: Path, directory: Path) -> str:
    """Keep the console of a failed boot beside the dumps and return its path, or an empty string."""
    console, kept = work / "console.log", directory.with_name(directory.name + ".failed.log")
    if not console.exists():
        return ""
    shutil.copyfile(console, kept)
    return str(kept)


def _boot(plan: Recipe, drivers: list[Path], work: Path, progress: Progress) -> None:
    # The Python that is packed is this machine's: elsewhere the shell copies memory as it is, and we filter it here.
    native = plan.kernel.architecture is AMD64
    patience = 1 if native else FOREIGN_PATIENCE
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        place = Path(scratch)
        initrd, carried, data, out, spare, image = (place / name for name in
                                                    ("initrd", "capture", "data.img", "out.img", "spare.img", "image"))
        guest.build_initramfs(plan.kernel, drivers, initrd, (*plan.programs, *map(Path, plan.fault.programs)),
                              plan.fault.before_init, plan.fault.modules)
        files: dict[str, bytes | Path] = {}
        if plan.fault.method == "kdump":
            text = capturing.config(level=plan.level, compress=plan.compress)
            capturing.build_image(plan.kernel, text, carried, compression=plan.compress, carried=native)
            files = {"vmlinuz": plan.kernel.image, "initrd": carried}
        recipe = guest_recipe(plan).encode()
        guest.make_disk(image, mib=1)          # for the guest to mount through a loop device
        guest.make_data_disk(data, {**files, "recipe": recipe, "image": image}, mib=96)
        guest.make_disk(out, mib=plan.memory_mib + 128, label=capturing.OUT)
        disks = [Disk(data, "data"), Disk(out, capturing.OUT)]
        if plan.spare_mib:
            guest.make_disk(spare, mib=plan.spare_mib, label="spare")
            disks.append(Disk(spare, "spare"))
        crashkernel = f"crashkernel={plan.crashkernel} " if plan.crashkernel else ""
        hardware = Hardware(
            kernel=plan.kernel.image, initrd=initrd, memory_mib=plan.memory_mib, architecture=plan.kernel.architecture,
            cmdline=f"{guest.cmdline(plan.kernel)} {crashkernel}{plan.fault.boot}".rstrip(),
            disks=tuple(disks),
            extra=("-device", "vmcoreinfo", "-netdev", "user,id=net,restrict=on",
                   "-device", "virtio-net-pci,netdev=net,romfile=", *plan.fault.hardware))
        progress(f"booting {plan.kernel.release}…")
        with Machine(hardware, work / "console.log") as machine:
            machine.wait_for(r"LAB ready", BOOT_SECONDS * patience, failures=("LAB failed", "Kernel panic"))
            progress(f"{plan.fault.name}: {plan.fault.story}")
            if plan.fault.method != "kdump":
                _dump_live(machine, plan.fault, work / "vmcore")
                return
            if plan.fault.monitor:
                time.sleep(plan.fault.monitor_after)
                machine.monitor(plan.fault.monitor)
            machine.wait_for(r"^kdumpy: ", plan.fault.seconds * patience, failures=("LAB failed", "Rebooting in"))
            progress("kdumpy is taking the dump…")
            seconds = CAPTURE_SECONDS * patience * max(plan.memory_mib // 640, 1)
            machine.wait_for(r"^kdumpy: poweroff", seconds, failures=(NO_DUMP, "Kernel panic"))
            machine.wait_end(60)
        guest.fetch_dump(out, work / "vmcore", with_log=native)
        if not native:
            _filter(plan, work / "vmcore")
    _check_symptom(plan, work / "console.log")


def _filter(plan: Recipe, vmcore: Path) -> None:
    """Put what the recipe's dump level keeps in the place of a whole copy of memory, and the log beside it."""
    filtered = vmcore.with_name("filtered")
    kdumpy = [sys.executable, "-m", "kdumpy"]
    run([*kdumpy, "capture", str(vmcore), str(filtered), "--level", str(plan.level), "--compress", plan.compress],
        "filtering the dump")
    filtered.replace(vmcore)
    vmcore.with_name("dmesg").write_text(run([*kdumpy, "log", str(vmcore)], "reading the log"))


def _dump_live(machine: Machine, fault: Fault, target: Path) -> None:
    kind = "elf" if fault.method == "live-elf" else "kdump-zlib"
    time.sleep(1)
    machine.qmp("dump-guest-memory", paging=False, protocol=f"file:{target}", format=kind)
    target.chmod(0o644)


def _check_symptom(plan: Recipe, console: Path) -> None:
    """Raise when the guest fell by another fault than the one of the recipe."""
    logs = (console, console.with_name("dmesg"))
    text = "\n".join(log.read_bytes().decode(errors="replace") for log in logs)
    if not any(re.search(pattern, text) for pattern in plan.fault.symptoms):
        raise LaboratoryError("the guest fell by another fault than the one that was wanted", where=str(console),
                              why=f"none of {', '.join(plan.fault.symptoms)} on its console or in its log")


def guest_recipe(plan: Recipe) -> str:
    """Return the shell file that the guest's init reads."""
    settings = " ".join(f"{key}={value}" for key, value in plan.fault.sysctls.items())
    lines = [f"sysctls='{settings}'", f"capture_cmdline='{guest.cmdline(plan.kernel, capturing.CMDLINE)}'",
             f"arm={'1' if plan.fault.method == 'kdump' else ''}", f"bare={'1' if plan.bare else ''}",
             f"as_init={'1' if plan.fault.as_init else ''}", f"trigger() {{ {plan.fault.commands()}; }}"]
    return "\n".join(lines) + "\n"

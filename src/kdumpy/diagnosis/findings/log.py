"""What the kernel complained of in its log: a table of its own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from kdumpy.diagnosis.facts.findings import Severity
from kdumpy.diagnosis.findings.base import CRITICAL, INFO, WARNING, Check, Found, Machine

# name, severity, what it means, the kernel's words (any of them)
_WORDS: tuple[tuple[str, Severity, str, str], ...] = (
    ("hardware errors", CRITICAL, "The hardware reported errors",
     r"\[Hardware Error\]|EDAC .*: \d+ UE |Uncorrected hardware memory error"),
    ("corrected errors", WARNING, "The memory reported errors that it could mend", r"EDAC .*: \d+ CE "),
    ("disk errors", WARNING, "A disk failed to read or write",
     r"(?:blk_update_request: )?(?:critical \w+|I/O) error, dev|Buffer I/O error on dev|ata\d+.*: failed command"),
    ("file system errors", CRITICAL, "A file system found itself damaged",
     r"EXT[234]-fs error|XFS \(.*\): (?:Corruption|Metadata corruption)|BTRFS (?:error|critical)|F2FS-fs .*corrupt"),
    ("slab errors", CRITICAL, "The slab allocator found broken objects",
     r"^BUG [\w.:-]+ \((?:Not tainted|Tainted)|Slab cache INFO: |SLUB: .*corrupt"),
    ("bad pages", CRITICAL, "The kernel found pages in an impossible state",
     r"BUG: Bad (?:page state|rss-counter|page map)"),
    ("failed allocations", WARNING, "The kernel could not get memory", r"page allocation failure: order:"),
    ("NFS servers", WARNING, "An NFS server did not answer", r"nfs: server .* not responding"),
    ("work queue lockups", WARNING, "A work queue stood still", r"BUG: workqueue lockup"),
    ("SCSI timeouts", WARNING, "A disk or its controller did not answer in time",
     r"(?:sd|scsi|nvme)\S* .*(?:timed out|timing out|timeout, (?:aborting|reset)|Abort command)|task abort"),
    ("multipath", WARNING, "Paths to a disk failed", r"device-mapper: multipath: .*Failing path"),
    ("RAID", CRITICAL, "A disk of a RAID array failed", r"md/raid\S*: .*Disk failure"),
    ("spurious interrupts", WARNING, "An interrupt came that no driver wanted, and was turned off",
     r"^irq \d+: nobody cared"),
    ("link down", INFO, "A network link went down", r"[Ll]ink is [Dd]own|NIC Link is Down"),
    ("network timeouts", WARNING, "A network card stopped to send", r"NETDEV WATCHDOG: "),
    ("throttling", INFO, "CPUs were throttled", r"(?:cpu clock throttled|temperature above threshold)"),
    ("unstable clock", INFO, "The kernel gave up a clock as unstable", r"Marking clocksource .* as unstable"),
    ("lost locks", WARNING, "lockdep saw locks taken in a wrong order",
     r"possible (?:circular locking dependency|recursive locking) detected|inconsistent lock state"),
    ("SYN flooding", INFO, "A socket got more connections than it could take", r"TCP: .*Possible SYN flooding|"
                           r"request_sock_TCP: Possible SYN flooding"),
    ("connection table", WARNING, "The table of connections overflowed", r"nf_conntrack: .*table full|"
                                  r"neighbour: \S+: neighbor table overflow"),
)


def _looker(severity: Severity, title: str, pattern: str) -> Callable[[Machine], Iterator[Found]]:
    compiled, hardware = re.compile(pattern), "Hardware Error" in pattern

    def look(machine: Machine) -> Iterator[Found]:
        known = machine.told_lines
        begin = machine.crash.event.position if machine.crash.event else 0
        lines = [line for number, line in enumerate(machine.crash.lines) if compiled.search(line)
                 # An error of the hardware is told bank by bank, and not in one piece.
                 and number not in known and not (hardware and machine.cause == "machine-check" and number >= begin)]
        if lines:
            times = f" ({len(lines)} lines)" if len(lines) > 1 else ""
            yield Found(severity, f"{title}{times}", lines[-1].strip(), "log")

    return look


# The kernel's structures say it better than its log does.
_UNLESS = {"multipath": "failed paths", "RAID": "RAID arrays", "NFS servers": "RPC calls",
           "work queue lockups": "worker pools"}
CHECKS = tuple(Check(name, _looker(severity, title, pattern), ("the log",), unless=_UNLESS.get(name, ""))
               for name, severity, title, pattern in _WORDS)

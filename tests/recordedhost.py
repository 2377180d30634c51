"""Hosts that were recorded: their /sys, mounts and network as a tree of files, for what arms a host to look at.

tests/data/hosts/<name>/ holds `sysfs` (F path contents, `|` for a line's end; L link target; D directory),
`mountinfo`, and `ip.json` (the arguments of `ip -j` → its answer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdumpy.errors import HostError
from kdumpy.host.system import Done, System

DATA = Path(__file__).parent / "data" / "hosts"

STACKED = {"254:1": ("ext4", "11111111-2222-4333-8444-000000000000"),
           "252:0": ("ext4", "11111111-2222-4333-8444-000000000001"),
           "252:1": ("ext4", "11111111-2222-4333-8444-000000000002"),
           "252:2": ("ext4", "11111111-2222-4333-8444-000000000003"),
           "8:48": ("btrfs", "11111111-2222-4333-8444-000000000004")}
"""What udev found on the devices of the host `stacked`."""


class RecordedSystem(System):
    """A tree whose `ip` answers as it did on the host."""

    def __init__(self, root: Path, answers: Mapping[str, object]) -> None:
        super().__init__(root)
        self.answers = dict(answers)

    def run(self, words: Sequence[str], *, seconds: float = 60, check: bool = True, stdin: str = "") -> Done:
        """Answer."""
        known = self.answers.get(" ".join(words[2:])) if words[:2] == ["ip", "-j"] else None
        if known is None:
            raise HostError("a program failed", where=" ".join(words), why="not recorded")
        return Done(0, json.dumps(known), "")


def recorded(root: Path, name: str = "stacked", contents: Mapping[str, tuple[str, str]] = STACKED) -> RecordedSystem:
    """Lay a recorded host out below an empty directory."""
    data = DATA / name
    for line in (data / "sysfs").read_text().splitlines():
        kind, _, rest = line.partition(" ")
        path, _, value = rest.partition(" ")
        place = root / path.lstrip("/")
        if kind == "D":
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "F":
            place.write_text(value.replace("|", "\n") + "\n")
        elif not place.is_symlink():      # several devices have one driver
            place.symlink_to(value)
            # What a link leads to has a directory of its own, if only an empty one.
            place.resolve().mkdir(parents=True, exist_ok=True)
    put(root, "proc/self/mountinfo", (data / "mountinfo").read_text())
    for number, (fs, uuid) in contents.items():
        put(root, f"run/udev/data/b{number}", f"E:ID_FS_TYPE={fs}\nE:ID_FS_UUID={uuid}\n")
    return RecordedSystem(root, json.loads((data / "ip.json").read_text()))


def put(root: Path, name: str, data: str | bytes) -> Path:
    """Write a file of the tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path

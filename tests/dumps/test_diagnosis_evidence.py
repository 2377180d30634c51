"""Each piece of evidence names the command that shows it: it is run, and the evidence looked for in its answer."""

from __future__ import annotations

import re
import shlex

import pytest

import lab
from console import Console, kernel_of
from diagnosed import diagnosed
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.model import Evidence
from kdumpy.units import human_bytes

_NAME = re.compile(r"\b[A-Za-z]\w*_\w+(?! \(tail call\))\b|\b0x[0-9a-f]{5,}\b|(?<=pid )\d+|\d+(?:\.\d+)? [KMG]iB")
"""What of a piece of evidence must be found: names, addresses, process ids, sizes."""
_KEPT = ("POISON_FREE", "watchdog_thresh")
"""Names of the kernel's source and of settings, which explain what is seen."""
_PART = 0.6
"""Of them: some sizes are computed (what no counter has, the rest)."""
_UNITS = (1, 1 << 10, 4096)
"""The shell tells sizes in bytes, KiB and pages."""


def _answer(console: Console, command: str) -> str:
    words = shlex.split(command)
    assert words[0] == "kdumpy"
    if words[1] == "log":
        return console("log")
    assert words[1] == "crash"
    assert set(words[3::2]) == {"-e"}
    return "".join(console(line) for line in words[4::2])


def _sizes(answer: str) -> set[str]:
    """Return the sizes that an answer holds, in the words of the report."""
    told = {human_bytes(int(number) * unit) for number in re.findall(r"\b\d+\b", answer) for unit in _UNITS}
    rounded = re.findall(r"(\d+(?:\.\d+)?) ([KMG])B\b", answer)
    return told | {f"{float(number):.1f} {unit}iB" for number, unit in rounded}


def _missing(item: Evidence, answer: str) -> tuple[list[str], int]:
    """Return (what of a piece of evidence does not stand in the answer, of how many)."""
    wanted = [name for name in _NAME.findall(item.detail.split(", of type ")[0]) if name not in _KEPT]
    sizes = _sizes(answer) if any(name.endswith("iB") for name in wanted) else set()
    return [name for name in wanted if name.removeprefix("0x") not in answer and name not in sizes], len(wanted)


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_evidence_shown(kernel: str, fault: str) -> None:
    """Every piece of a verdict's evidence has a command, which works, and whose answer shows what the evidence says."""
    console = Console(kernel_of(kernel, fault))
    try:
        for item in diagnosed(kernel, fault).verdict.evidence:
            assert item.command, f"no command shows {item.what}: {item.detail}"
            answer = _answer(console, item.command)
            missing, number = _missing(item, answer)
            assert len(missing) <= number * (1 - _PART), f"{item.command} does not show {missing} of {item.what}"
    finally:
        console("set -p")


def test_code_is_named_as_the_kernel_names_it() -> None:
    """`flaky_poll_channel` is no symbol there: the compiler has made flaky_poll_channel.isra.0 of it."""
    kernel = kernel_of("5.10", "null-workqueue")
    shown = Crash(kernel.path, kernel, kernel.log).evidence.code("flaky_poll_channel")
    assert shown == "flaky_poll_channel.isra.0"
    assert "flaky_poll_channel" in Console(kernel)(f"dis {shown}")

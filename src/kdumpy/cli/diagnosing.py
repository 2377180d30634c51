"""What `report` and `report --new` share: a dump's diagnosis, and files that only their owner can read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdumpy.cli.common import open_from

if TYPE_CHECKING:
    from kdumpy.diagnosis import Diagnosis
    from kdumpy.diagnosis.details import Details
    from kdumpy.dumpfile import Dump
    from kdumpy.errors import DamagedDump


def diagnose_arguments(arguments: argparse.Namespace) -> tuple[Diagnosis, Details | None]:
    """Diagnose the dump; where it cannot be opened whole, by its log alone. The details are for --html only."""
    from kdumpy.errors import DamagedDump

    try:
        kernel = open_from(arguments, commands=False)
    except DamagedDump as damage:
        return _by_log(arguments, damage)
    except MemoryError:     # a size that damage has made absurd
        return _by_log(arguments, DamagedDump("it cannot be opened whole", where=str(arguments.vmcore),
                                              why="more memory than the limit would be needed"))
    from kdumpy.diagnosis import diagnose
    from kdumpy.diagnosis.steps import EACH

    seconds = EACH if arguments.timeout is None else arguments.timeout
    with kernel:
        found = diagnose(kernel, seconds=seconds)
        if arguments.html is None:
            return found, None
        from kdumpy.diagnosis.details import gather

        return found, gather(kernel, found, seconds=seconds)


def _by_log(arguments: argparse.Namespace, damage: DamagedDump) -> tuple[Diagnosis, Details | None]:
    from kdumpy.diagnosis.diagnose import diagnose_log
    from kdumpy.dumpfile import open_dump
    from kdumpy.errors import KdumpyError

    try:
        with open_dump(arguments.vmcore) as dump:
            found = diagnose_log(arguments.vmcore, dump, str(damage))
            return found, _details_of_log(found, dump) if arguments.html else None
    except KdumpyError:
        raise damage from None


def _details_of_log(diagnosis: Diagnosis, dump: Dump) -> Details:
    from kdumpy.diagnosis.details import gather_log

    return gather_log(diagnosis, dump)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whatever was there before."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, 0o600)
        file.write(text.encode("utf-8", "backslashreplace"))

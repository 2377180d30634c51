"""An NFS server of our own on the loopback, which guests on QEMU's user network reach."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saving import need_program, need_root

HOST = "10.0.2.2"
"""This machine, as a guest on QEMU's user network sees it."""


@dataclass(frozen=True)
class NfsServer:
    """NFS 4 on a port of its own."""

    folder: Path
    """What it exports as /srv."""
    port: int


@contextmanager
def serving(place: Path) -> Iterator[NfsServer]:
    """Serve a folder below `place`; skips the test where that cannot be."""
    need_root("runs an NFS server")
    need_program("ganesha.nfsd")
    folder, state = place / "export", place / "state"
    folder.mkdir()
    state.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = place / "ganesha.conf"
    settings.write_text(f"""
        NFS_CORE_PARAM {{ NFS_Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false;
                          Enable_RQUOTA = false; }}
        NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {state}; }}
        EXPORT {{ Export_Id = 1; Path = {folder}; Pseudo = /srv; Access_Type = RW; Squash = No_Root_Squash;
                  SecType = sys; FSAL {{ Name = VFS; }} }}
        """)
    log = place / "ganesha.log"
    process = subprocess.Popen(["ganesha.nfsd", "-F", "-f", settings, "-L", log, "-p", place / "pid"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (log.exists() and "NFS SERVER INITIALIZED" in log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield NfsServer(folder, port)
    finally:
        process.kill()      # it takes its time to end otherwise, and nothing of it is kept
        process.wait()

"""Runs in a guest with a whole system: takes commands from the host over a virtio port and answers what they said.

One JSON object a line: {"words": [...], "stdin": "", "seconds": 60} is answered by {"code": 0, "out": "", "err": ""}.
Only tests have such a guest; whoever holds the other end of the port is root here.
"""

import json
import subprocess
from io import FileIO
from pathlib import Path
from typing import Any

PORT = "/dev/virtio-ports/agent"


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Run one command."""
    try:
        done = subprocess.run(question["words"], input=question["stdin"], capture_output=True, text=True,
                              errors="replace", timeout=question["seconds"], check=False, cwd="/root")
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"code": 127, "out": "", "err": str(error)}
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def send(port: FileIO, data: bytes) -> None:
    """Write all: the port takes at most 32 KiB at a time (drivers/char/virtio_console.c, port_fops_write())."""
    while data:
        data = data[port.write(data) or 0:]


with Path(PORT).open("r+b", buffering=0) as port:
    send(port, b'{"hello": "agent"}\n')
    pending = b""
    while True:
        pending += port.read(65536)
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            send(port, json.dumps(answer(json.loads(line))).encode() + b"\n")

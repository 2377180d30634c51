"""Real places to save to: loop devices, an ssh daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdumpy.capture.targets.mounting import mounted_at
from saving import SshServer, need_program, need_root, run


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make block devices: `loop(64)` has 64 MiB of zeros."""
    need_root("makes loop devices")
    devices: list[str] = []

    def attach(mib: int) -> Path:
        file = tmp_path / f"disk-{len(devices)}"
        with file.open("wb") as out:
            out.truncate(mib << 20)
        try:
            device = run("losetup", "--find", "--show", file).decode().strip()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no loop device: {error.stderr.decode().strip()}")
        devices.append(device)
        return Path(device)

    yield attach
    for device in devices:
        for where in mounted_at(Path(device)):  # a test failed half-way
            run("umount", where)
        run("losetup", "--detach", device)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    need_root("runs an ssh daemon")
    need_program("sshd", "ssh", "ssh-keygen")
    server = SshServer(tmp_path_factory.mktemp("sshd"))
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait()

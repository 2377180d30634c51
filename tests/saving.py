"""What tests of the capture share: settings, saving a real dump, an ssh daemon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

import lab
from kdumpy.capture.config import CaptureConfig, from_values
from kdumpy.capture.pipeline import Options, save
from kdumpy.capture.targets.base import Target
from kdumpy.dumpfile import open_dump


def run(*command: str | Path, data: bytes | None = None) -> bytes:
    """Run a program that must not fail."""
    return subprocess.run(list(map(str, command)), input=data, check=True, capture_output=True).stdout


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"not root: {what}")


def need_program(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None and not Path("/usr/sbin", name).exists():
            pytest.skip(f"{name} is not installed: tools/system-packages tests")


def config(**values: object) -> CaptureConfig:
    """Return a configuration; what waits does so briefly."""
    return from_values({"targets": ["/var/crash"], "device_wait_s": 0, **values})


def save_dump(target: Target) -> str:
    """Save the bundled dump to a target; return the name it was kept under."""
    with open_dump(lab.bundled()) as dump:
        sink = target.open("vmcore")
        summary = save(dump, sink, Options(workers=1))
        sink.close()
        return target.keep("vmcore", summary.bytes_written)


def assert_is_the_dump(path: Path) -> None:
    """Check that a file holds every page of the bundled dump and is finished."""
    with open_dump(lab.bundled()) as expected, open_dump(path) as found:
        assert not found.incomplete
        assert (found.pages_present, found.vmcoreinfo.osrelease) == (expected.pages_present,
                                                                     expected.vmcoreinfo.osrelease)
        pfns = [pfn for run in expected.present() for pfn in run][::37]
        assert (found.read_pages(pfns) == expected.read_pages(pfns)).all()


class SshServer:
    """An ssh daemon of our own on the loopback, which lets root in with one key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.known_hosts = folder / "key", folder / "known_hosts"
        host_key = folder / "host_key"
        for path in (self.key, host_key):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        authorized = folder / "authorized_keys"
        authorized.write_bytes(Path(f"{self.key}.pub").read_bytes())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {Path(f'{host_key}.pub').read_text()}")
        settings = folder / "sshd_config"
        settings.write_text(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host_key}\n"
                            f"AuthorizedKeysFile {authorized}\nPidFile none\nStrictModes no\nUsePAM no\n"
                            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.log = folder / "sshd.log"
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", settings, "-E", self.log])

    def wait(self) -> None:
        for _attempt in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"sshd does not answer: {self.log.read_text()}")

    def url(self, path: Path) -> str:
        return f"ssh://root@127.0.0.1:{self.port}{path}"

    def config(self, **values: object) -> CaptureConfig:
        return config(**{"ssh_key": str(self.key), "ssh_known_hosts": str(self.known_hosts), **values})

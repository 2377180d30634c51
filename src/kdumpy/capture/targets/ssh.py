"""A directory on another machine by the ssh program: `ssh://user@host[:port]/dir`.

The other side needs a POSIX shell with mkdir, cat, df, mv and sync. Its host key must be known.
"""

from __future__ import annotations

import shlex
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kdumpy.capture.targets.base import incomplete
from kdumpy.capture.targets.commands import run
from kdumpy.capture.targets.piped import FULL_WORDS, PipedStream
from kdumpy.capture.targets.streamed import StreamedTarget
from kdumpy.errors import HostError, NoSpace, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig

PROGRAMS = ("ssh",)

_PAUSE = 2.0
_NOT_YET = ("Connection refused", "Connection timed out", "No route to host", "Network is unreachable",
            "Temporary failure in name resolution", "Could not resolve hostname", "Connection reset")
"""What ssh says while a network is coming up."""


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL is not whole, or the key or the known hosts are not named."""
    _split(url)
    for key, what in (("ssh_key", "the private key to log in with"), ("ssh_known_hosts", "the host's public key")):
        if not getattr(config, key):
            raise UsageError(f"{key} is needed for {url}", mend=f"name the file with {what}")


def make(url: str, config: CaptureConfig, directory: str) -> SshTarget:
    """Return the target."""
    return SshTarget(url, config, directory)


def _split(url: str) -> tuple[str, int | None, PurePosixPath]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"not a URL: {url!r}", why=str(error)) from None
    path = unquote(parts.path)
    if not parts.hostname or not parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(f"not a login on another machine: {url!r}", mend="ssh://user@host/directory is right")
    if path in ("", "/") or ".." in PurePosixPath(path).parts:
        raise UsageError(f"names no directory: {url!r}", mend="ssh://user@host/var/crash, or …/~/dir for the home")
    login = f"{unquote(parts.username)}@{parts.hostname}"
    if login.startswith("-") or any(letter.isspace() for letter in login):
        raise UsageError(f"not a login on another machine: {url!r}")
    # /~/dir is below the home directory, where the shell starts.
    return login, port, PurePosixPath(path.removeprefix("/~/") if path.startswith("/~/") else path)


class SshTarget(StreamedTarget):
    """Files on the other machine, each through a `cat` of its own."""

    def __init__(self, url: str, config: CaptureConfig, directory: str) -> None:
        super().__init__(url, summed=config.sha256)
        self._login, port, self._base = _split(url)
        self._own = directory
        self._directory = self._base / directory if directory else self._base
        self._wait_s = config.device_wait_s
        self._command = [
            "ssh", "-F", "none", "-x", "-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={_quoted(config.ssh_known_hosts)}", "-o", "GlobalKnownHostsFile=none",
            "-o", "UpdateHostKeys=no", "-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={_quoted(config.ssh_key)}",
            "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
            "-o", "ForwardAgent=no", "-o", "LogLevel=ERROR",
            *(("-p", str(port)) if port else ()), "--", self._login]

    def prepare(self) -> None:
        """Log in and make the directory; while the network comes up again and again."""
        base, own = _shell(self._base), _shell(self._directory)
        make_own = f" && {{ test -d {own} || mkdir -m 700 {own}; }}" if self._own else ""
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                self._remote(f"umask 077; mkdir -p {base}{make_own} && test -w {own}", "cannot make the directory")
                return
            except HostError as error:
                if time.monotonic() + _PAUSE > deadline or not any(words in error.why for words in _NOT_YET):
                    raise
                time.sleep(_PAUSE)

    def free_bytes(self) -> int | None:
        """Ask df; None where it answers something else."""
        answer = self._remote(f"df -Pk {_shell(self._directory)}", "cannot ask for free space")
        lines = answer.decode("utf-8", "replace").splitlines()
        fields = lines[-1].split() if lines else []
        # The file system's name may hold blanks: count from the end.
        return int(fields[-3]) * 1024 if len(fields) >= 6 and fields[-3].isdigit() else None

    def connect(self, name: str) -> PipedStream:
        """Begin a file."""
        path = self._directory / incomplete(name)
        return PipedStream([*self._command, f"umask 077; export LC_ALL=C; exec cat >{_shell(path)}"],
                           self.place(incomplete(name)))

    def rename(self, name: str) -> None:
        """Sync and rename. An old `sync` knows no file: then it syncs all."""
        before, after = _shell(PurePosixPath(incomplete(name))), _shell(PurePosixPath(name))
        self._remote(f"cd {_shell(self._directory)} && {{ sync {before} || sync; }} 2>/dev/null && "
                     f"mv -f {before} {after} && {{ sync . || sync; }} 2>/dev/null", "cannot finish the dump")

    def abandon(self, name: str, size: int | None = None) -> str:
        """Break the connection; what arrived stays."""
        self._abort()
        path = self._directory / incomplete(self._names.get(name, name))
        try:
            self._remote(f"test -s {_shell(path)}", "nothing arrived")
        except HostError:
            return ""
        return self.place(path.name)

    def discard(self, name: str) -> None:
        """Remove what arrived."""
        path = self._directory / incomplete(self._names.get(name, name))
        self._remote(f"rm -f {_shell(path)}", "cannot remove the incomplete dump")

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Write a small file whole."""
        partial, path = _shell(PurePosixPath(f".{name}.partial")), _shell(PurePosixPath(name))
        self._remote(f"umask 077; cd {_shell(self._directory)} && cat >{partial} && "
                     f"{{ sync {partial} 2>/dev/null || sync; }} && mv -f {partial} {path}", "cannot write", data)

    def place(self, name: str) -> str:
        """Return where it lies, as scp names it."""
        return f"{self._login}:{self._directory / name}"

    def close(self) -> None:
        """End a connection that is still there."""
        self._abort()

    def _remote(self, script: str, what: str, data: bytes | bytearray | None = None) -> bytes:
        try:
            return run([*self._command, f"export LC_ALL=C; {script}"], what, data=data)
        except HostError as error:
            kind = NoSpace if any(words in error.why for words in FULL_WORDS) else HostError
            mend = error.mend
            if "verification failed" in error.why:
                mend = "put the host's key into ssh_known_hosts: ssh-keyscan host, and compare it on the host"
            elif "Permission denied" in error.why:
                mend = f"put the public half of ssh_key into authorized_keys of {self._login}"
            raise kind(what, where=self.url, why=error.why, mend=mend) from error


def _quoted(path: str) -> str:
    """Quote a path for ssh's own option parser, which splits at blanks and expands %."""
    escaped = path.replace("%", "%%").replace('"', '\\"')
    return f'"{escaped}"'


def _shell(path: PurePosixPath) -> str:
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)

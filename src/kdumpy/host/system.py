"""The machine that is armed: its files below a root, and its programs through one gateway.

Everything in `host/` goes through a `System`, so that every edit can be tried on a tree of another distribution's
files, and every program that is run has a time limit, no shell, and an error that says what it printed.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kdumpy.errors import HostError

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: a service's own PATH may lack the sbin directories."""

GRACE_S = 10
"""Seconds that a program gets to end by itself."""

LARGEST_TEXT = 16 << 20
"""Bytes that are read of a text file at most; none of those that are of interest is larger."""


@dataclass(frozen=True, slots=True)
class Done:
    """A program that was run."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What it said last, for an error's `why`: its last lines on standard error, or on standard output."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return " / ".join(lines[-3:])[:500] or f"exit code {self.code}"


class System:
    """A root directory and the programs that belong to it.

    Args:
        root: `/`, or a tree of files that stands for it. Paths given to the methods are absolute and without it.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @property
    def live(self) -> bool:
        """Whether this is the running machine and no tree."""
        return self.root == Path("/")

    def path(self, name: str) -> Path:
        """Return where a file of the system lies; a link in a tree that is absolute stays within the tree."""
        path = self.root / name.lstrip("/")
        for _ in range(20):
            if self.live or not path.is_symlink():
                return path
            to = path.readlink()
            path = self.root / to.relative_to("/") if to.is_absolute() else path.parent / to
        raise HostError("too many symbolic links", where=name)

    def exists(self, name: str) -> bool:
        """Tell whether a file or directory is there."""
        return self.path(name).exists()

    def read(self, name: str) -> str | None:
        """Return a text file's contents, or None when it is not there.

        Raises:
            HostError: it is there and cannot be read.
        """
        data = self.read_bytes(name)
        return None if data is None else data.decode(errors="replace")

    def read_bytes(self, name: str) -> bytes | None:
        """Do as `read`, in bytes; at most LARGEST_TEXT."""
        try:
            with self.path(name).open("rb", buffering=0) as file:
                data = bytearray()
                # /proc/sys answers ENOMEM to a read of 4 MiB and more (proc_sys_call_handler, since 5.8).
                while len(data) < LARGEST_TEXT and (part := file.read(1 << 20)):
                    data += part
                return bytes(data)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            root = "run it as root" if isinstance(error, PermissionError) and os.geteuid() != 0 else ""
            raise HostError("cannot read the file", where=name, why=error.strerror or str(error), mend=root) from error

    def value(self, name: str) -> str | None:
        """Return the one line of a file in /proc or /sys, stripped; None when it is not there or not readable."""
        try:
            text = self.read(name)
        except HostError:
            return None
        return None if text is None else text.strip()

    def glob(self, pattern: str) -> list[str]:
        """Return the paths that match a pattern, sorted, without the root."""
        return sorted("/" + str(path.relative_to(self.root)) for path in self.root.glob(pattern.lstrip("/")))

    def which(self, program: str) -> str | None:
        """Return a program's path without the root, or None."""
        if self.live:
            return shutil.which(program, path=SEARCH)
        return next((f"{folder}/{program}" for folder in SEARCH.split(":") if self.exists(f"{folder}/{program}")),
                    None)

    def run(self, words: Sequence[str], *, seconds: float = 60, check: bool = True, stdin: str = "") -> Done:
        """Run a program of the system and return what it said.

        Args:
            words: the program and its arguments; no shell reads them.
            seconds: after which it is killed, with what it has started.
            check: a failure is an error.
            stdin: what it reads.

        Raises:
            HostError: it is not installed, did not end in time, or failed (with `check`).
        """
        if not self.live:
            raise HostError("programs are run on the live system only", where=str(self.root), why=words[0])
        program = self.which(words[0])
        if program is None:
            from kdumpy.host import packages  # it asks the system what distribution it is

            raise HostError("a program is missing", why=words[0], mend=packages.advice(self, words[0]))
        environment = {**os.environ, "PATH": SEARCH, "LC_ALL": "C.UTF-8"}
        try:
            done = _run([program, *words[1:]], stdin, seconds, environment)
        except subprocess.TimeoutExpired as error:
            raise HostError("a program did not end in time", where=words[0], why=f"{seconds:.0f} s") from error
        except OSError as error:
            raise HostError("cannot run a program", where=program, why=error.strerror or str(error)) from error
        answer = Done(done.returncode, done.stdout, done.stderr)
        if check and answer.code:
            raise HostError("a program failed", where=" ".join(words), why=answer.told)
        return answer


def _run(words: Sequence[str], stdin: str, seconds: float,
         environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Do as subprocess.run(), in a session of its own: nothing asks on the terminal, and all of it can be ended."""
    with unlimited():
        started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, errors="replace", env=environment, cwd="/", start_new_session=True)
    with started as running:
        try:
            out, err = running.communicate(stdin, timeout=seconds)
        except BaseException:
            _end(running)
            raise
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def _end(running: subprocess.Popen[str]) -> None:
    """End a program with its children: a generator's would go on writing where their directory is removed.

    First it may put away what it has begun: a package manager that is killed leaves its database locked.
    """
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(GRACE_S)
        os.killpg(running.pid, signal.SIGKILL)


@contextmanager
def unlimited() -> Iterator[None]:
    """Start programs without the limit that is for our reading of dumps (`cli.main`): they inherit it, and Argon2 takes
    1 GiB, a virtual machine what its guest has.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

"""Any target, with the dump and the log encrypted to a public key by age or GnuPG before a byte leaves memory.

The programs see a pipe and the public key, never a name or a path of the crashed machine.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Protocol

from kdumpy.capture.targets.base import ByteStream, Target
from kdumpy.capture.targets.commands import run
from kdumpy.capture.targets.piped import PipedStream
from kdumpy.capture.targets.streamed import FLAT
from kdumpy.errors import HostError

if TYPE_CHECKING:
    from kdumpy.dumpfile.sink import StreamSink

_PIECE = 1 << 18
_PLAIN = (".sha256", "kexec-dmesg.log")
"""Ends of names that are written as they are: they hold nothing of the crashed machine's memory."""


class Cipher(Protocol):
    """A program that encrypts its standard input."""

    suffix: str

    def command(self) -> list[str]:
        """Return the command line."""


class Age:
    """https://age-encryption.org."""

    suffix = ".age"

    def __init__(self, recipient: str) -> None:
        self._recipient = recipient

    def command(self) -> list[str]:
        """Return the command line."""
        return ["age", "--encrypt", "--recipient", self._recipient]


class Gpg:
    """GnuPG, with a key file in place of a key ring."""

    suffix = ".gpg"

    def __init__(self, key_file: str) -> None:
        self._key_file = key_file
        self._home = tempfile.TemporaryDirectory(prefix="kdumpy-gpg-")

    def command(self) -> list[str]:
        """Return the command line; what it encrypts is compressed already."""
        return ["gpg", "--homedir", self._home.name, "--batch", "--no-tty", "--quiet", "--no-autostart",
                "--no-options", "--trust-model", "always", "--compress-algo", "none",
                "--recipient-file", self._key_file, "--output", "-", "--encrypt"]


def cipher_of(encrypt: str) -> Cipher:
    """Return what the configuration's `encrypt` asks for."""
    return Gpg(encrypt.removeprefix("gpg:")) if encrypt.startswith("gpg:") else Age(encrypt)


class EncryptedTarget:
    """Passes everything to another target, and what is secret through the cipher."""

    seekable = False

    def __init__(self, inner: Target, encrypt: str) -> None:
        self.url = inner.url
        self._inner = inner
        self._cipher = cipher_of(encrypt)
        self._stream: _EncryptingStream | None = None
        self._names: dict[str, str] = {}

    def prepare(self) -> None:
        """See that the cipher works, before anything is reached: nothing is ever written without it."""
        self._encrypt(b"kdumpy")
        self._inner.prepare()

    def free_bytes(self) -> int | None:
        """Return the inner target's; what encryption adds is less than one part in a thousand."""
        return self._inner.free_bytes()

    def open(self, name: str) -> StreamSink:
        """Begin a dump: `vmcore` becomes `vmcore.flat.age`."""
        from kdumpy.dumpfile.sink import StreamSink

        self._names[name] = name + FLAT + self._cipher.suffix
        stream = self.stream(name + FLAT)
        return StreamSink(stream.write, self._inner.place(self._names[name]), finish=stream.finish)

    def stream(self, name: str) -> ByteStream:
        """Begin a file."""
        self._stream = _EncryptingStream(self._cipher, self._inner.stream(name + self._cipher.suffix))
        return self._stream

    def keep(self, name: str, size: int | None = None) -> str:
        """Give the file its name; the size of what it became is known to the inner target alone."""
        stream, self._stream = self._stream, None
        return self._inner.keep(self._name(name), stream.written if stream is not None else None)

    def abandon(self, name: str, size: int | None = None) -> str:
        """Stop the cipher."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
        return self._inner.abandon(self._name(name), stream.written if stream is not None else None)

    def discard(self, name: str) -> None:
        """Remove the incomplete file."""
        self._inner.discard(self._name(name))

    def digest(self, name: str) -> str | None:
        """Return the sum of the encrypted file."""
        return self._inner.digest(name)

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Write a small file, encrypted unless it tells nothing."""
        if name.endswith(_PLAIN):
            self._inner.put(name, data)
        else:
            self._inner.put(name + self._cipher.suffix, self._encrypt(data))

    def place(self, name: str) -> str:
        """Return where a file lies."""
        as_it_is = name in self._names or name.endswith((*_PLAIN, self._cipher.suffix))
        return self._inner.place(self._name(name) if as_it_is else name + self._cipher.suffix)

    def close(self) -> None:
        """Close the inner target."""
        self._inner.close()

    def _name(self, name: str) -> str:
        return self._names.get(name, name)

    def _encrypt(self, data: bytes | bytearray) -> bytes:
        encrypted = run(self._cipher.command(), "cannot encrypt", data=data)
        if not encrypted:
            raise HostError("cannot encrypt", where=self._cipher.command()[0], why="the program gave nothing")
        return encrypted


class _EncryptingStream:
    """What is written goes into the program, what comes out of it into the inner stream, by a thread."""

    def __init__(self, cipher: Cipher, inner: ByteStream) -> None:
        self.written = 0
        """Bytes that came out."""
        self._inner = inner
        self._failure: Exception | None = None
        try:
            self._program = PipedStream(cipher.command(), cipher.command()[0], stdout=subprocess.PIPE)
        except BaseException:
            inner.abort()
            raise
        self._thread = threading.Thread(target=self._carry, name="encrypted", daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        output = self._program.process.stdout
        assert output is not None
        try:
            while piece := output.read(_PIECE):
                self._inner.write(piece)
                self.written += len(piece)
        except Exception as error:
            self._failure = error
            self._program.process.kill()  # the writer wakes up with a broken pipe

    def write(self, data: bytes | memoryview) -> None:
        """Write all of it; the inner stream's error is told by the next write."""
        try:
            self._program.write(data)
        except HostError as error:
            self._thread.join()
            raise self._failure or error from None

    def finish(self) -> None:
        """End the program, then the inner stream."""
        try:
            self._program.finish()
        except HostError:
            self._thread.join()
            if self._failure is not None:
                raise self._failure from None
            raise
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._inner.finish()

    def abort(self) -> None:
        """Kill the program, abort the inner stream."""
        self._program.abort()
        self._thread.join()
        self._inner.abort()

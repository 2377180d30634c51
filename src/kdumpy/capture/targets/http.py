"""A server that takes PUT: `https://host/path` or `http://…`. The dump is sent while it is made, in chunks.

A server may take an upload for whole only when its last chunk has come (RFC 9112, section 8), and that is sent only
behind a whole dump: so the file has its name from the start, and a capture that fails leaves none.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from kdumpy.capture.targets.streamed import StreamedTarget
from kdumpy.errors import HostError, NoSpace, UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig

PROGRAMS: tuple[str, ...] = ()

_SECONDS = 60
"""Without an answer, or without taking more bytes."""
_CHUNK = 1 << 18
_PAUSE = 2.0
_FULL = (413, 507)
"""Content Too Large, Insufficient Storage (WebDAV)."""
_DONE = (200, 201, 202, 204)
_LONGEST_ANSWER = 65536


def check(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when the URL is not whole, or a token would travel in the clear."""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError as error:
        raise UsageError(f"not a URL: {url!r}", why=str(error)) from None
    if not parts.hostname or parts.query or parts.fragment or any(letter.isspace() for letter in url):
        raise UsageError(f"not a place to PUT to: {url!r}", mend="https://host/path is right")
    if parts.username or parts.password:
        raise UsageError("a password stands in the URL", mend="put a token into http_token_file")
    if parts.scheme == "http" and config.http_token_file:
        raise UsageError(f"the token would travel in the clear: {url!r}", mend="use https")


def make(url: str, config: CaptureConfig, directory: str) -> HttpTarget:
    """Return the target."""
    return HttpTarget(url, config, directory)


class HttpTarget(StreamedTarget):
    """Files below a URL, each by a PUT of its own."""

    def __init__(self, url: str, config: CaptureConfig, directory: str) -> None:
        super().__init__(url, summed=config.sha256)
        self._parts = urlsplit(url)
        self._own = directory
        self._wait_s = config.device_wait_s
        self._ca = config.http_ca
        self._token_file = config.http_token_file
        self._headers: dict[str, str] = {}

    def prepare(self) -> None:
        """Reach the server and have it make the directory, if it is one that does so (WebDAV)."""
        self._headers = {"User-Agent": "kdumpy", "Content-Type": "application/octet-stream"}
        if self._token_file:
            self._headers["Authorization"] = f"Bearer {_token(Path(self._token_file))}"
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                self._make_directory()
                return
            except HostError as error:
                # A certificate that is wrong stays wrong; a network may come up.
                if time.monotonic() + _PAUSE > deadline or isinstance(error, _Refused):
                    raise
                time.sleep(_PAUSE)

    def _make_directory(self) -> None:
        if not self._own:
            return
        status, reason = self._ask("MKCOL", self._path("") + "/")
        # 405, 501 and others: the server knows no directories, or has this one. A PUT will tell.
        if status == 401:
            raise _Refused("the server refuses", where=self.url, why=f"{status} {reason}",
                           mend="check the token in http_token_file")

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        assert host is not None
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_SECONDS)
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca or None)
        except OSError as error:
            raise _Refused("cannot read the certificates", where=self._ca or "the system's",
                           why=error.strerror or str(error), mend="name a PEM file in http_ca") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)

    def _ask(self, method: str, path: str, body: bytes | bytearray | None = None) -> tuple[int, str]:
        connection = self._connection()
        try:
            connection.request(method, path, body=body, headers=self._headers)
            answer = connection.getresponse()
            answer.read(_LONGEST_ANSWER)
            return answer.status, answer.reason
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached(error) from error
        finally:
            connection.close()

    def _unreached(self, error: OSError | http.client.HTTPException) -> HostError:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            return _Refused("the server's certificate is not right", where=self.url, why=error.verify_message,
                            mend="name the authority that signed it in http_ca")
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return HostError("cannot reach the server", where=self.url, why=why)

    def free_bytes(self) -> int | None:
        """Return None: no server tells."""
        return None

    def connect(self, name: str) -> _Upload:
        """Begin a PUT."""
        connection = self._connection()
        try:
            connection.putrequest("PUT", self._path(name))
            for key, value in {**self._headers, "Transfer-Encoding": "chunked"}.items():
                connection.putheader(key, value)
            connection.endheaders()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreached(error) from error
        return _Upload(connection, self.place(name))

    def rename(self, name: str) -> None:
        """Do nothing: the file has its name since the last chunk."""

    def abandon(self, name: str, size: int | None = None) -> str:
        """Close the connection in the midst of it: the server must not take the file for whole."""
        self._abort()
        return ""

    def discard(self, name: str) -> None:
        """Do nothing: an upload that was not ended is no file."""

    def put(self, name: str, data: bytes | bytearray) -> None:
        """Send a small file."""
        status, reason = self._ask("PUT", self._path(name), data)
        if status not in _DONE:
            raise _failure(status, reason, self.place(name))

    def place(self, name: str) -> str:
        """Return the URL."""
        return f"{self._parts.scheme}://{self._parts.netloc}{self._path(name)}"

    def _path(self, name: str) -> str:
        # The URL's own path is taken as it is written; ours may hold colons.
        return "/".join(part for part in (self._parts.path.rstrip("/"), quote(self._own), quote(name)) if part) or "/"

    def close(self) -> None:
        """End a connection that is still there."""
        self._abort()


class _Refused(HostError):
    """Trying again will not help."""


class _Upload:
    """The body of one PUT."""

    def __init__(self, connection: http.client.HTTPConnection, where: str) -> None:
        self._connection = connection
        self._where = where
        self._held = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Send it, in chunks of some size."""
        self._held += data
        if len(self._held) >= _CHUNK:
            self._send()

    def _send(self, last: bytes = b"") -> None:
        chunk = b"%x\r\n" % len(self._held) + self._held + b"\r\n" if self._held else b""
        try:
            self._connection.send(chunk + last)
        except OSError as error:
            raise self._why_not(error) from error
        self._held.clear()

    def finish(self) -> None:
        """Send the last chunk and hear what the server says."""
        self._send(b"0\r\n\r\n")
        try:
            answer = self._connection.getresponse()
            answer.read(_LONGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise HostError("the server did not answer", where=self._where,
                            why=str(error) or type(error).__name__) from error
        finally:
            self._connection.close()
        if answer.status not in _DONE:
            raise _failure(answer.status, answer.reason, self._where)

    def abort(self) -> None:
        """Close without the last chunk."""
        self._connection.close()

    def _why_not(self, error: OSError) -> HostError:
        """Return what the server said before it closed, if it said something."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = self._connection.getresponse()
            return _failure(answer.status, answer.reason, self._where)
        return HostError("the server broke off", where=self._where, why=error.strerror or str(error))


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _Refused("cannot read the token", where=str(path),
                       why=getattr(error, "strerror", None) or "it is not plain ASCII") from error
    if not token or not token.isprintable() or " " in token:
        raise _Refused("the token is not one word", where=str(path))
    return token


def _failure(status: int, reason: str, where: str) -> HostError:
    kind = NoSpace if status in _FULL else HostError
    mend = {401: "check the token in http_token_file", 403: "check the token in http_token_file",
            405: "the server must allow PUT there"}.get(status, "")
    if status in (301, 302, 303, 307, 308):
        mend = "name the place that it points to: redirects are not followed"
    return kind("the server did not take the file", where=where, why=f"{status} {reason}".strip(), mend=mend)

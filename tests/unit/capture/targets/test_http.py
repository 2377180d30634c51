"""A server that takes PUT, in the clear and with TLS: whole files only, the token, the certificate, the full disk."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from kdumpy.capture.targets import target_of
from kdumpy.dumpfile.sink import Sink
from kdumpy.errors import HostError, NoSpace, UsageError
from saving import assert_is_the_dump, config, need_program, run, save_dump


class Receiver(BaseHTTPRequestHandler):
    """Takes PUT into a folder, as RFC 9112 wants it: an upload that was broken off is no file."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    token: ClassVar[str] = ""
    room: ClassVar[int] = 1 << 40
    methods: ClassVar[list[str]] = []

    def do_PUT(self) -> None:
        self.methods.append(f"PUT {self.path}")
        if self.token and self.headers["Authorization"] != f"Bearer {self.token}":
            self._answer(401)
            return
        body = bytearray()
        while piece := self._piece():
            body += piece
            if len(body) > self.room:
                self.close_connection = True
                self._answer(507)
                return
        path = self.folder / self.path.lstrip("/").replace("%3A", ":")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        self._answer(201)

    def do_MKCOL(self) -> None:
        self.methods.append(f"MKCOL {self.path}")
        self._answer(405 if not self.token or self.headers["Authorization"] == f"Bearer {self.token}" else 401)

    def _piece(self) -> bytes:
        if "Content-Length" in self.headers:
            size = int(self.headers["Content-Length"])
            del self.headers["Content-Length"]
            return self.rfile.read(size)
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        size = int(self.rfile.readline() or b"-", 16)     # ValueError when the connection broke: no answer
        piece = self.rfile.read(size)
        assert self.rfile.readline() == b"\r\n"
        return piece

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        return


@pytest.fixture
def receiver(tmp_path: Path) -> type[Receiver]:
    class Fresh(Receiver):
        folder = tmp_path / "received"
        methods: ClassVar[list[str]] = []

    return Fresh


@pytest.fixture
def server(receiver: type[Receiver]) -> Iterator[str]:
    with QuietServer(("127.0.0.1", 0), receiver) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/crashes"
        running.shutdown()


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of our own for 127.0.0.1, and its key."""
    need_program("openssl")
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=receiver", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    return certificate, key


@pytest.fixture
def tls_server(receiver: type[Receiver], authority: tuple[Path, Path]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    with QuietServer(("127.0.0.1", 0), receiver) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{running.server_port}/crashes/"
        running.shutdown()


def test_a_dump_arrives_in_the_clear(server: str, receiver: type[Receiver]) -> None:
    target = target_of(server, config(sha256=True), "web-3-2026-11-23-17:58:57")
    target.prepare()
    assert target.free_bytes() is None
    target.put("vmcore-dmesg.txt", b"log")
    assert save_dump(target) == "vmcore.flat"
    target.close()
    folder = receiver.folder / "crashes" / "web-3-2026-11-23-17:58:57"
    assert (folder / "vmcore-dmesg.txt").read_bytes() == b"log"
    assert_is_the_dump(folder / "vmcore.flat")
    assert target.digest("vmcore.flat") == hashlib.sha256((folder / "vmcore.flat").read_bytes()).hexdigest()
    assert target.place("vmcore.flat") == f"{server}/web-3-2026-11-23-17%3A58%3A57/vmcore.flat"
    assert receiver.methods[0] == "MKCOL /crashes/web-3-2026-11-23-17%3A58%3A57/"


def test_a_dump_arrives_over_tls_with_the_token(tls_server: str, receiver: type[Receiver],
                                                authority: tuple[Path, Path], tmp_path: Path) -> None:
    receiver.token = "s3cret"
    (tmp_path / "token").write_text("s3cret\n")
    settings = config(http_ca=str(authority[0]), http_token_file=str(tmp_path / "token"))
    target = target_of(tls_server, settings, "here")
    target.prepare()
    save_dump(target)
    target.close()
    assert_is_the_dump(receiver.folder / "crashes" / "here" / "vmcore.flat")

    (tmp_path / "token").write_text("wrong")
    target = target_of(tls_server, settings, "there")
    with pytest.raises(HostError, match=r"401.*http_token_file"):
        target.prepare()
    with pytest.raises(HostError, match=r"401.*http_token_file"):
        target.put("vmcore-dmesg.txt", b"log")
    assert not (receiver.folder / "crashes" / "there").exists()


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_server: str, receiver: type[Receiver]) -> None:
    with pytest.raises(HostError, match=r"certificate is not right.*http_ca"):
        target_of(tls_server, config(device_wait_s=60), "here").prepare()
    assert receiver.methods == []


def test_a_certificate_for_another_name_is_refused(tls_server: str, authority: tuple[Path, Path]) -> None:
    url = tls_server.replace("127.0.0.1", "localhost")
    with pytest.raises(HostError, match=r"certificate is not right.*[Hh]ostname mismatch"):
        target_of(url, config(http_ca=str(authority[0])), "here").prepare()


def test_authorities_that_cannot_be_read_are_told(tls_server: str, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot read the certificates.*PEM"):
        target_of(tls_server, config(http_ca=str(tmp_path / "none")), "here").prepare()


def send(sink: Sink, mib: int) -> None:
    for piece in range(mib):
        sink.write_at(piece << 20, bytes(1 << 20))
    sink.close()


def test_a_server_that_is_full_is_told_as_such(server: str, receiver: type[Receiver]) -> None:
    receiver.room = 1 << 20
    target = target_of(server, config(), "here")
    target.prepare()
    with pytest.raises(NoSpace, match="507"):
        send(target.open("vmcore"), 64)
    assert target.abandon("vmcore") == ""
    target.put("vmcore-dmesg.txt", b"log")
    target.close()
    assert [path.name for path in receiver.folder.rglob("vmcore*")] == ["vmcore-dmesg.txt"]


def test_a_capture_that_fails_leaves_no_file(server: str, receiver: type[Receiver]) -> None:
    target = target_of(server, config(), "here")
    target.prepare()
    sink = target.open("vmcore")
    for piece in range(4):
        sink.write_at(piece << 20, bytes(1 << 20))
    assert target.abandon("vmcore") == ""
    target.put("kexec-dmesg.log", b"why")
    target.close()
    assert [path.name for path in receiver.folder.rglob("*.*")] == ["kexec-dmesg.log"]


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(HostError, match=r"cannot reach the server.*refused"):
        target_of("http://127.0.0.1:1/x", config(), "here").prepare()


@pytest.mark.parametrize(("url", "told"), [
    ("http:///path", "not a place"), ("https://host/p?q=1", "not a place"), ("https://user:pw@host/", "password"),
    ("https://host:x/", "not a URL"), ("https://host/a b", "not a place")])
def test_a_url_that_is_not_whole_is_refused(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        target_of(url, config())


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        target_of("http://host/", config(http_token_file="/token"))

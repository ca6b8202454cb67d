"""A proxy before an S3 server that is as unreliable as the internet: it adds latency, and spoils one request in twenty.

It is an HTTP/1.1 server with a thread for each connection. The client's ``Host`` header goes on unchanged, because
it is part of what the client has signed.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

FAULTS = ("busy", "silent", "stalled", "cut", "emptied", "reset", "lost")
"""
busy: answered 503 SlowDown.
silent: taken, and never answered.
stalled: answered with half of the body, and then nothing.
cut: answered with half of the body, then the connection is closed.
emptied: answered without a byte of the body, then the connection is closed.
reset: the connection is reset before the server has the request.
lost: the server does what it was asked, and the connection is reset before it says so.
"""
_OF_THE_BODY = ("stalled", "cut", "emptied")

_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
)
_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
_GONE = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>It is not there.</Message></Error>"


@dataclass
class FaultyS3:
    """A running proxy.

    Attributes:
        backend: host and port of the server behind it.
        endpoint: where it listens.
        one_in: of so many requests in a row, one is spoilt; which one is drawn with the seed. 0 spoils none.
        latency_s: added to every answer.
        silence_s: how long a silent or stalled connection is held; longer than the clients wait.
        denied: a request for a path that this matches is answered 403.
        missing: a request for a path that this matches is answered 404, as if the object had just been removed.
        requests: requests seen, by method.
        mute: a request for a path that this matches is taken, and never answered.
        done: faults that have happened, by kind.
        first_s: `time.monotonic` of the first answer of each status.
        most_at_once: the most requests that were under way at one time.
    """

    backend: str
    endpoint: str = ""
    one_in: int = 20
    latency_s: float = 0.3
    silence_s: float = 30.0
    seed: int = 0
    denied: re.Pattern[str] | None = None
    missing: re.Pattern[str] | None = None
    mute: re.Pattern[str] | None = None
    requests: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    first_s: dict[int, float] = field(default_factory=dict)
    most_at_once: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    _at_once: int = 0
    _due: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._spoilt_place = 0

    def draw(self, method: str) -> str | None:
        """The fault of the next request, or None. The kinds take turns, so that all of them happen."""
        with self._lock:
            place = sum(self.requests.values()) % self.one_in if self.one_in else None
            self.requests[method] += 1
            if place == 0:
                self._spoilt_place = self._random.randrange(self.one_in)
            if place is None or place != self._spoilt_place:
                return None
            if not self._due:
                self._due = self._random.sample(FAULTS, len(FAULTS))
            # Half of a body can be sent only of an answer that has one.
            fits = [kind for kind in self._due if method in ("GET", "POST") or kind not in _OF_THE_BODY]
            if not fits:
                return "busy"
            self._due.remove(fits[0])
            return fits[0]

    def count(self, fault: str) -> None:
        """Note a fault that happens."""
        with self._lock:
            self.done[fault] += 1

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._at_once == 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Note a request for as long as it takes."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def faulty_s3(endpoint: str, **settings: object) -> Iterator[FaultyS3]:
    """A proxy before the server at `endpoint`; see `FaultyS3` for the settings."""
    proxy = FaultyS3(backend=urlsplit(endpoint).netloc, **settings)  # type: ignore[arg-type]
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what this server is made for."""


class _Handler(BaseHTTPRequestHandler):
    proxy: ClassVar[FaultyS3]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        with self.proxy.under_way():
            body = self._request_body()
            fault = self.proxy.draw(self.command)
            self.proxy.stopping.wait(self.proxy.latency_s)
            if self.proxy.denied and self.proxy.denied.search(self.path):
                self._answer(403, "Forbidden", [("Content-Type", "application/xml")], _DENIED)
            elif self.proxy.missing and self.proxy.missing.search(self.path):
                self._answer(404, "Not Found", [("Content-Type", "application/xml")], _GONE)
            elif self.proxy.mute and self.proxy.mute.search(self.path):
                self._hold()
            elif fault == "busy":
                self.proxy.count(fault)
                self._answer(503, "Slow Down", [("Content-Type", "application/xml")], _SLOW_DOWN)
            elif fault == "silent":
                self.proxy.count(fault)
                self._hold()
            elif fault == "reset":
                self.proxy.count(fault)
                self._reset()
            else:
                self._pass_on(body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - names that http.server looks for

    def _request_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def _pass_on(self, body: bytes, fault: str | None) -> None:
        backend = http.client.HTTPConnection(self.proxy.backend, timeout=60)
        try:
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length"):
                    backend.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                backend.putheader("Content-Length", str(len(body)))
            backend.endheaders(body)
            answer = backend.getresponse()
            content = answer.read()
        finally:
            backend.close()
        if fault == "lost":
            self.proxy.count(fault)
            self._reset()
            return
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
        if self.command == "HEAD" or answer.status == 204:
            length = answer.getheader("Content-Length")
            self._answer(answer.status, answer.reason, headers, b"", length)
            return
        self._answer(answer.status, answer.reason, headers, content, None, fault)

    def _answer(
        self,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
        fault: str | None = None,
    ) -> None:
        self.proxy.first_s.setdefault(status, time.monotonic())
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is None or not content:
            self.wfile.write(content)
            return
        self.proxy.count(fault)
        self.wfile.write(content[: 0 if fault == "emptied" else len(content) // 2])
        if fault == "stalled":
            self._hold()
        self.close_connection = True

    def _hold(self) -> None:
        """Say nothing until the client hangs up, or for as long as the setting says."""
        deadline = time.monotonic() + self.proxy.silence_s
        self.connection.settimeout(0.2)
        while time.monotonic() < deadline and not self.proxy.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.close_connection = True

    def _reset(self) -> None:
        # With no time to linger, closing a socket sends a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()


_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")

"""A proxy between a client and a server that cuts every connection after a while."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

_PIECE_BYTES = 512


class CuttingProxy:
    """Passes bytes on; each of its first connections is cut after so many bytes from the server.

    Attributes:
        port: where it listens.
        cut: connections that were cut.
    """

    def __init__(self, server_port: int, cut_after_bytes: tuple[int, ...]) -> None:
        self._server_port, self._budgets = server_port, list(cut_after_bytes)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for source, sink, from_server in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, from_server), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        # A thread that waits in `accept` is not woken by `close` alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, from_server: bool) -> None:
        passed = 0
        try:
            while data := source.recv(_PIECE_BYTES):
                passed += len(data)
                sink.sendall(data)
                if from_server and self._is_used_up(passed):
                    break
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_used_up(self, passed: int) -> bool:
        """Whether a connection has had all that one of them may have; short ones are left alone."""
        with self._lock:
            if not self._budgets or passed < self._budgets[0]:
                return False
            self._budgets.pop(0)
            self.cut += 1
            return True


@contextlib.contextmanager
def cutting_proxy(server_port: int, *cut_after_bytes: int) -> Iterator[CuttingProxy]:
    """A `CuttingProxy` for the time of the block."""
    proxy = CuttingProxy(server_port, cut_after_bytes)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(timeout=10)

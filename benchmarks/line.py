"""A line to a server, as slow as it is told to be, that can be cut or flip a bit."""

import socket
import threading
import time
from contextlib import suppress

_STEP = 16 * 1024


class Line:
    """Relays TCP connections to a port of this machine.

    Args:
        port: where the server is.
        rate: bytes per second that come back over all connections together; None for no limit.
    """

    def __init__(self, port: int, rate: float | None = None) -> None:
        self.rate, self.carried = rate, 0
        self.flips = 0  # so many more bits are flipped, one each in what is no header
        self.spare_text = False  # not in JSON and XML
        self._server, self._open = port, True
        self._lock, self._next = threading.Lock(), 0.0
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """The network is gone, for what is under way too."""
        self._open = False
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._server))
            except OSError:
                return
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends += [near, far]
            if not self._open:
                self.cut()
            for one, other, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._relay, args=(one, other, back), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_STEP):
                if back:
                    data = self._carry(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _carry(self, data: bytes) -> bytes:
        with self._lock:
            self.carried += len(data)
            begin = max(self._next, time.monotonic())
            self._next = begin + (len(data) / self.rate if self.rate else 0)
            wait = self._next - time.monotonic()
            body = data.partition(b"\r\n\r\n")[2] if data.startswith(b"HTTP") else data
            text = self.spare_text and body[:1] in (b"{", b"<")
            if self.flips and len(body) > 16 and not text:
                self.flips -= 1
                data = data[:-9] + bytes([data[-9] ^ 16]) + data[-8:]
        if wait > 0:
            time.sleep(wait)
        return data

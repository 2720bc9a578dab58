"""A real S3 server on loopback, and a proxy before it that does what networks do."""

import http.client
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Answers leave at once, not when the one before was acknowledged.
MOTO = """
import sys
from werkzeug.serving import WSGIRequestHandler
from moto.server import main
WSGIRequestHandler.disable_nagle_algorithm = True
main(sys.argv[1:])
"""
DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class S3Server:
    """moto's server in a process of its own."""

    def __init__(self):
        self.port = free_port()
        command = [sys.executable, "-c", MOTO, "-H", "127.0.0.1", "-p", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **quiet)
        for _ in range(600):
            with suppress(OSError):
                self.request("GET", "/moto-api/")
                return
            assert self.process.poll() is None
            time.sleep(0.1)
        raise TimeoutError("moto did not start")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path)
        return connection.getresponse().status

    def make_bucket(self, name):
        assert self.request("PUT", f"/{name}") == 200

    def stop(self):
        self.process.kill()
        self.process.wait()


@dataclass
class Seen:
    """A request as the proxy passed it on."""

    method: str
    path: str
    headers: dict = field(default_factory=dict)
    status: int = 0
    bytes: int = 0  # of the response's body, as far as the client was sent them


Fault = Callable[[Seen], str]
"""What to do to a request: "" or one of the names in ``_Handler``."""


class Proxy:
    """Passes requests to a server, one fault after another.

    ``fault`` names what is done to each request: ``reset`` (before it is passed on), ``lost`` (the
    answer never arrives), ``503``, ``403``, ``slow``, ``truncated``, ``cut`` (the body ends early,
    with a length that says so), ``flipped`` (one bit of the answer), ``flipped-up`` (one bit of
    what is sent), ``unconditional`` (If-None-Match is dropped). With ``cut_after`` every
    connection is cut once so many bytes passed, and ``on_cut`` is called.
    """

    def __init__(self, server):
        self.server = server
        self.seen = []
        self.fault = lambda _seen: ""
        self.left = None  # bytes until `on_cut`
        self.on_cut = lambda: None
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_port}"

    def spend(self, count):
        """Whether these bytes may still pass."""
        with self.lock:
            if self.left is None:
                return True
            before, self.left = self.left, self.left - count
            if before > 0 >= self.left:
                self.on_cut()
            return self.left > 0

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def setup(self):
        super().setup()
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.server.port, timeout=60)

    def finish(self):
        self.upstream.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, *_):
        pass

    def _abort(self):
        """End the connection as a router that was switched off does: with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.close_connection = True
        self.connection.close()

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self):
        seen = Seen(self.command, self.path, dict(self.headers))
        with self.proxy.lock:
            self.proxy.seen.append(seen)
            fault = self.proxy.fault(seen)
        body = self._body()
        if fault == "reset" or not self.proxy.spend(len(body)):
            return self._abort()
        headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
        headers["Content-Length"] = str(len(body))
        if fault == "unconditional":
            headers = {k: v for k, v in headers.items() if k.lower() != "if-none-match"}
        if fault == "flipped-up" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in ("503", "403"):
            return self._answer(seen, int(fault), {}, DENIED if fault == "403" else b"busy", "")
        self.upstream.request(self.command, self.path, body, headers)
        answer = self.upstream.getresponse()
        content = answer.read()
        if fault == "lost":
            return self._abort()
        if fault == "cut":
            content = content[: len(content) // 2]
        if fault == "flipped" and content:
            at = len(content) // 2
            content = content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("content-length", "connection", "transfer-encoding")
        }
        if self.command == "HEAD":
            kept["Content-Length"] = answer.getheader("Content-Length") or "0"
        return self._answer(seen, answer.status, kept, content, fault)

    def _answer(self, seen, status, headers, content, fault):
        seen.status = status
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
        if "Content-Length" not in headers:
            headers["Content-Length"] = str(len(content))
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            whole = content[: len(content) // 2] if fault == "truncated" else content
            piece = max(1, len(whole) // 20) if fault == "slow" else 1 << 16
            for start in range(0, len(whole), piece):
                part = whole[start : start + piece]
                if not self.proxy.spend(len(part)):
                    return self._abort()
                self.wfile.write(part)
                seen.bytes += len(part)
                if fault == "slow":
                    time.sleep(0.02)
            if fault == "truncated":
                return self._abort()
        except OSError:
            self.close_connection = True
        return None


for _verb in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(_Handler, f"do_{_verb}", _Handler._handle)

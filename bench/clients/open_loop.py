"""
An open loop: so many requests per second, whether or not the ones before have been answered.

Each request has a moment at which it is due, and its latency counts from there, so that a stall is
seen by everybody who would have called during it.  Plain sockets and `select`, whose timeout has
microseconds (an event loop's has milliseconds, and would send in bursts).

    python -m bench.clients.open_loop PORT HOST PATH RATE CONNECTIONS SECONDS
"""

import re
import select
import socket
import statistics
import sys
import time
from collections import deque

from . import report

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATIENCE = 5.0


class Caller:
    """One connection with at most one request on it."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.received = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.sock.sendall(request)

    def answered(self) -> bool:
        """Read, and say whether the answer is whole."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("connection closed before the answer was there")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(self.received, 0, end)
        if len(self.received) < end + 4 + (int(length[1]) if length else 0):
            return False
        if self.received[9:12] != b"200":
            raise ConnectionError(f"answered {self.received[:40].decode('latin-1')!r}")
        self.received = b""
        return True


def call(port: int, host: str, path: str, rate: float, connections: int, seconds: float) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    idle = deque(Caller(port) for _ in range(connections))
    busy: dict[socket.socket, Caller] = {}
    late: deque[float] = deque()  # due, and no connection is idle
    latencies: list[float] = []
    total = int(rate * seconds)
    began = time.perf_counter()
    sent = 0
    while len(latencies) < total:
        now = time.perf_counter()
        if now > began + seconds + _PATIENCE:
            raise TimeoutError(f"{total - len(latencies)} of {total} requests were not answered")
        while sent < total and began + sent / rate <= now:
            late.append(began + sent / rate)
            sent += 1
        while late and idle:
            caller = idle.popleft()
            busy[caller.sock] = caller
            caller.send(request, late.popleft())
        wait = _PATIENCE if sent == total else max(0.0, began + sent / rate - time.perf_counter())
        for sock in select.select(list(busy), [], [], wait)[0]:
            caller = busy[sock]
            if caller.answered():
                latencies.append(time.perf_counter() - caller.due)
                idle.append(busy.pop(sock))
    cuts = statistics.quantiles(latencies, n=100)
    report(
        requests=total,
        seconds=time.perf_counter() - began,
        p50_ms=cuts[49] * 1000,
        p99_ms=cuts[98] * 1000,
    )


if __name__ == "__main__":
    _port, _host, _path, _rate, _connections, _seconds = sys.argv[1:]
    call(int(_port), _host, _path, float(_rate), int(_connections), float(_seconds))

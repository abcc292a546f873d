"""
A closed loop of load: so many connections, each sends its next request when the answer is there.

`wrk` does it best and cheapest.  Without it, a client of our own on uvloop does it in a process of
its own; it takes more CPU, so that on few cores it leaves less for what is measured: compare runs
of the same client only.

    python -m bench.load URL HOST CONNECTIONS SECONDS      the client of our own
"""

import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

# wrk's own report rounds; its hook has the exact figures.
_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int


def client() -> str:
    """Return which client will be used: `wrk` where it is installed."""
    return "wrk" if shutil.which("wrk") else "built-in"


def run(url: str, host: str, connections: int, seconds: int) -> Load:
    """Load `url`, calling it `host`, and say how that went."""
    if client() == "built-in":
        return _result(
            [sys.executable, "-m", "bench.load", url, host, str(connections), str(seconds)]
        )
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        script = Path(folder) / "report.lua"
        script.write_text(_REPORT)
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
        return _result(["wrk", *options, "-H", f"Host: {host}", url])


def _result(command: list[str]) -> Load:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("JSON ")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return Load(**json.loads(line.removeprefix("JSON ")))


# The client of our own ----------------------------------------------------------------------------


class Caller(asyncio.Protocol):
    """One connection; `latencies` and `failed` are shared by all."""

    def __init__(self, request: bytes, latencies: list[float], failed: list[str]) -> None:
        self.request = request
        self.latencies = latencies
        self.failed = failed
        self.received = bytearray()
        self.whole = 0  # bytes of the response that is under way, once its head is here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.send()

    def send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.whole:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self.received, 0, end)
            self.whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.received) >= self.whole:
            if self.received[9:12] != b"200":
                self.failed.append(self.received[:40].decode("latin-1"))
            self.latencies.append(time.perf_counter() - self.began)
            self.received.clear()
            self.whole = 0
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.received or error:
            self.failed.append(f"connection lost: {error}")


async def call(url: str, host: str, connections: int, seconds: float) -> Load:
    target = urlsplit(url)
    request = f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert target.hostname
    assert target.port
    address = target.hostname, target.port
    latencies: list[float] = []
    failed: list[str] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    callers = [
        await loop.create_connection(lambda: Caller(request, latencies, failed), *address)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    for transport, _ in callers:
        transport.abort()
    if len(latencies) < 2:
        raise RuntimeError(f"no answers from {url}: {failed[:1]}")
    cuts = statistics.quantiles(latencies, n=100)
    return Load(len(latencies), took, cuts[49] * 1000, cuts[98] * 1000, len(failed))


if __name__ == "__main__":
    _url, _host, _connections, _seconds = sys.argv[1:]
    _load = uvloop.run(call(_url, _host, int(_connections), float(_seconds)))
    print("JSON " + json.dumps(asdict(_load)))

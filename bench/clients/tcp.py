"""
Connections that are not HTTP, to `bench.origin`.

    python -m bench.clients.tcp up|down|connect|ping PORT CONNECTIONS SECONDS

`up` and `down` are bulk transfers on so many connections, `connect` opens so many at a time, uses
each for one short exchange and closes it, `ping` sends 100 bytes back and forth on each.
"""

import asyncio
import selectors
import socket
import statistics
import sys
import time
from typing import cast

import uvloop

from bench.origin import ECHO, SINK, SOURCE

from . import report

_CHUNK = b"x" * (256 * 1024)
_MESSAGE = b"m" * 100
_PATIENCE = 15.0


async def up(port: int, connections: int, seconds: float) -> None:
    """Send; what counts is what has arrived at the other end, and the time until it had."""

    async def flow(until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SINK)
        while time.perf_counter() < until:
            writer.write(_CHUNK)
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(_PATIENCE):
            count = int.from_bytes(await reader.readexactly(8), "big")
        writer.close()
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(flow(began + seconds) for _ in range(connections)))
    _report_bytes(counts, time.perf_counter() - began)


class _Receiver:
    """A BufferedProtocol that counts; by duck type, because uvloop asks for inheritance."""

    buffer = memoryview(bytearray(256 * 1024))

    def __init__(self) -> None:
        self.count = 0
        self.lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(SOURCE)

    def get_buffer(self, _size: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.count += size

    def eof_received(self) -> None: ...

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True


async def down(port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    receivers = [_Receiver() for _ in range(connections)]
    began = time.perf_counter()
    transports = [
        (await loop.create_connection(lambda r=receiver: r, "127.0.0.1", port))[0]  # type: ignore[misc]
        for receiver in receivers
    ]
    await asyncio.sleep(seconds)
    # On a crowded machine the last of many may just be shaking hands.
    while not all(one.count for one in receivers) and time.perf_counter() < began + _PATIENCE:
        await asyncio.sleep(0.05)
    counts, took = [receiver.count for receiver in receivers], time.perf_counter() - began
    if any(receiver.lost for receiver in receivers):
        raise ConnectionError("a connection was lost")
    for transport in transports:
        transport.abort()
    _report_bytes(counts, took)


def _report_bytes(counts: list[int], seconds: float) -> None:
    if not min(counts):
        raise ConnectionError("a connection has moved not one byte")
    report(bytes=sum(counts), seconds=seconds, fairness=min(counts) / max(counts))


async def connect(port: int, connections: int, seconds: float) -> None:
    """Without asyncio: its streams would cost more than what they are to measure."""
    latencies: list[float] = []
    began = time.perf_counter()
    with selectors.DefaultSelector() as watched:

        def dial() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one = [time.perf_counter(), len(_MESSAGE)]  # when it began, bytes that are to come
            sock.connect_ex(("127.0.0.1", port))
            watched.register(sock, selectors.EVENT_WRITE, one)

        for _ in range(connections):
            dial()
        while watched.get_map():
            ready = watched.select(_PATIENCE)
            if not ready:
                raise TimeoutError(f"no answer within {_PATIENCE:.0f} s")
            for key, events in ready:
                sock, one = cast("socket.socket", key.fileobj), key.data
                if events & selectors.EVENT_WRITE:
                    sock.sendall(ECHO + _MESSAGE)  # raises what the dial has come to
                    watched.modify(sock, selectors.EVENT_READ, one)
                    continue
                got = len(sock.recv(len(_MESSAGE)))
                if not got:
                    raise ConnectionError("a connection ended before its answer")
                one[1] -= got
                if one[1]:
                    continue
                latencies.append(time.perf_counter() - one[0])
                watched.unregister(sock)
                sock.close()
                if time.perf_counter() < began + seconds:
                    dial()
    _report_turns(latencies, began)


def _report_turns(latencies: list[float], began: float) -> None:
    cuts = statistics.quantiles(latencies, n=100)
    report(
        turns=len(latencies),
        seconds=time.perf_counter() - began,
        p50_ms=cuts[49] * 1000,
        p99_ms=cuts[98] * 1000,
    )


async def ping(port: int, connections: int, seconds: float) -> None:
    latencies: list[float] = []

    async def turns(until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await _exchange(reader, writer, ECHO)
        while (began := time.perf_counter()) < until:
            await _exchange(reader, writer)
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(turns(began + seconds) for _ in range(connections)))
    _report_turns(latencies, began)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, before: bytes = b""
) -> None:
    writer.write(before + _MESSAGE)
    await reader.readexactly(len(_MESSAGE))


if __name__ == "__main__":
    _what = {"up": up, "down": down, "connect": connect, "ping": ping}[sys.argv[1]]
    _port, _connections, _seconds = sys.argv[2:]
    uvloop.run(_what(int(_port), int(_connections), float(_seconds)))

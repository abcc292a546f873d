"""One HTTP/1.1 connection: requests one after another, each answered as it asks to be."""

import asyncio
import contextlib
from dataclasses import dataclass

from .connection import GARBAGE, flush, reset
from .fault import NONE, Fault, FaultError, read
from .health import PATH
from .ledger import Ledger

_BLOCK = 1 << 16


class _Over(Exception):  # noqa: N818 - no error: the connection is done with
    """Nothing more is said or heard here."""


@dataclass
class _Request:
    method: str
    path: str
    fields: dict[str, str]

    @property
    def id(self) -> str:
        return self.fields.get("x-id", "-")


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ledger: Ledger, first: bytes
) -> None:
    """
    Serve a connection to its end.

    Args:
        first: What was read of it already.
    """
    try:
        await _Http1(reader, writer, ledger).run(first)
    except (_Over, asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class _Http1:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ledger: Ledger
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._ledger = ledger
        self._served = 0

    async def run(self, first: bytes) -> None:
        head = first + await self._reader.readuntil(b"\r\n\r\n")
        while True:
            await self._answer(_parse(head))
            self._served += 1
            head = await self._reader.readuntil(b"\r\n\r\n")

    async def _answer(self, request: _Request) -> None:
        ledger, id_ = self._ledger, request.id
        if request.path == PATH:
            status = b"200 Well" if ledger.well else b"503 Ill"
            self._writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
            return
        ledger.received[id_] += 1
        try:
            fault = read(request.fields.get("x-fault", ""))
            if fault.do in ("rst", "goaway", "leave"):
                raise FaultError(f"x-fault: {fault.do} is no word of HTTP/1.1")
        except FaultError as error:
            await self._body(request, None)
            text = f"{error}\n".encode()
            self._writer.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
            )
            return
        if not ledger.strikes(fault, id_, served=self._served):
            fault = NONE
        if fault.at == "request":
            await self._body(request, fault.after)
            if fault.executes:
                ledger.execute(id_)
            await self._act(fault, id_)
        await self._body(request, None)
        ledger.execute(id_)
        await self._say(fault, request)
        if fault.framing == "close":
            raise _Over

    # What comes -----------------------------------------------------------------------------------

    async def _body(self, request: _Request, limit: int | None) -> None:
        """Read the body, or so many bytes of it."""
        length = request.fields.get("content-length")
        if length is not None:
            wanted = int(length) if limit is None else min(limit, int(length))
            while wanted:
                data = await self._reader.read(min(wanted, _BLOCK))
                if not data:
                    raise _Over
                wanted -= len(data)
        elif request.fields.get("transfer-encoding") == "chunked":
            while size := int((await self._reader.readline()) or b"0", 16):
                await self._reader.readexactly(size + 2)
                if limit is not None and (limit := limit - size) <= 0:
                    return
            await self._reader.readuntil(b"\r\n")

    # What goes ------------------------------------------------------------------------------------

    async def _say(self, fault: Fault, request: _Request) -> None:
        """Say the answer, up to where the fault is."""
        await asyncio.sleep(fault.late)
        parts = _parts(fault, request)
        where, offset = fault.at, fault.after
        for name, part in parts:
            if name != where:
                self._writer.write(part)
                continue
            cut = min(offset, len(part))
            self._writer.write(part[:cut])
            if fault.do is not None:
                await self._act(fault, request.id)
            await self._slowly(part[cut:], fault.pace)
            for _, rest in parts[[n for n, _ in parts].index(name) + 1 :]:
                await self._slowly(rest, fault.pace)
            break
        await self._writer.drain()

    async def _slowly(self, data: bytes, pace: float) -> None:
        for byte in data:
            self._writer.write(bytes((byte,)))
            await asyncio.sleep(pace)
            if self._writer.is_closing():
                raise _Over

    async def _act(self, fault: Fault, id_: str) -> None:
        if fault.do == "reset":
            await flush(self._writer)
            reset(self._writer)
        elif fault.do == "garbage":
            self._writer.write(GARBAGE)
        elif fault.do == "stall":
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(_BLOCK):
                    pass
            self._ledger.abandoned[id_] += 1
        raise _Over


def _parse(head: bytes) -> _Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    method, path, _ = first.split(" ", 2)
    return _Request(method, path, fields)


def _parts(fault: Fault, request: _Request) -> list[tuple[str, bytes]]:
    """Return the answer in pieces, by the points of `at`."""
    body = (request.id.encode() + b"\n").ljust(fault.size, b".")[: fault.size]
    fields = [f"HTTP/1.1 {fault.status} Whatever"]
    end = b""
    if fault.framing == "length":
        fields.append(f"Content-Length: {len(body) + fault.length}")
    elif fault.framing in ("chunked", "lie"):
        fields.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        lie = 5 if fault.framing == "lie" else 0
        body = b"%x\r\n%b\r\n%x\r\n%b\r\n" % (
            *(half + lie, body[:half]),
            *(len(body) - half, body[half:]),
        )
        end = b"0\r\n\r\n"
    if fault.retry_after:
        fields.append(f"Retry-After: {fault.retry_after}")
    head = "\r\n".join([*fields, "", ""]).encode()
    if request.method == "HEAD":
        body = end = b""
    return [("head", head), ("body", body), ("end", end)]

"""One HTTP/2 connection: many streams, gRPC calls among them, each answered as it asks to be."""

import asyncio
import struct

from tests.helpers.http2 import Headers
from tests.helpers.http2_peers import End, Stream

from .connection import GARBAGE, flush, reset
from .fault import NONE, Fault, FaultError, read
from .health import GRPC_PATH, PATH, grpc_status
from .ledger import Ledger

Answer = tuple[Headers, bytes, Headers]
"""Head, body and trailers."""


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ledger: Ledger, first: bytes
) -> None:
    """
    Serve a connection to its end.

    Args:
        first: What was read of it already.
    """
    connection = _Connection(reader, writer, ledger)
    connection.wire.hear(first)
    await connection.run()


class _Connection(End):
    """
    Attributes:
        frozen: Stalled in the middle of a frame: nobody on it can say anything any more.
        last: The last stream that is looked at, once it has said GOAWAY.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ledger: Ledger
    ) -> None:
        self.frozen = False
        self.last = 2**31
        self._ledger = ledger
        self._served = 0
        super().__init__(reader, writer, self._answer)

    def write(self, data: bytes) -> None:
        if not self.frozen:
            super().write(data)

    async def _answer(self, stream: Stream) -> None:
        opening = await stream.next()
        if opening.headers is None or stream.number > self.last:
            return
        fields = dict(opening.headers)
        ledger, id_ = self._ledger, fields.get("x-id", "-")
        if fields[":path"] in (PATH, GRPC_PATH):
            await self._read(stream, None, opening.ended)
            await self._tell_health(stream, fields[":path"])
            return
        ledger.received[id_] += 1
        try:
            fault = read(fields.get("x-fault", ""))
        except FaultError as error:
            stream.head([(":status", "400")])
            await stream.body(f"{error}\n".encode())
            return
        if not ledger.strikes(fault, id_, served=self._served):
            fault = NONE
        self._served += 1
        limit = fault.after if fault.at == "request" else None
        if not await self._read(stream, limit, opening.ended):
            return
        if fault.at != "request" or fault.executes:
            ledger.execute(id_)
        if fault.at == "request":
            await self._act(fault, stream, id_)
        elif fields.get("content-type", "").startswith("application/grpc"):
            await self._say(fault, stream, _grpc(fault, id_), id_)
        else:
            await self._say(fault, stream, _plain(fault, id_), id_)

    async def _tell_health(self, stream: Stream, path: str) -> None:
        well = self._ledger.well
        if path == PATH:
            stream.head([(":status", "200" if well else "503")], end=True)
            return
        stream.head([(":status", "200"), ("content-type", "application/grpc")])
        await stream.body(grpc_status(well=well), end=False)
        stream.head([("grpc-status", "0")], end=True)

    async def _read(self, stream: Stream, limit: int | None, ended: bool) -> bool:
        """Read the body, or so many bytes of it; return False when the client gives up."""
        read = 0
        while not ended and (limit is None or read < limit):
            heard = await stream.next()
            if heard.kind == "RstStream":
                return False
            if heard.kind == "Data":
                read += len(heard.frame.data)
            ended = heard.ended
        return True

    # What goes ------------------------------------------------------------------------------------

    async def _say(self, fault: Fault, stream: Stream, answer: Answer, id_: str) -> None:
        """Say the answer, up to where the fault is."""
        head, body, trailers = answer
        only = not body and not trailers
        await asyncio.sleep(fault.late)
        if fault.at == "head":
            if fault.after:
                self.write(self.wire.headers(stream.number, head, end=only)[: fault.after])
                self.frozen = fault.do == "stall"
            if await self._acted(fault, stream, id_):
                return
            await asyncio.sleep(fault.pace)
        stream.head(head, end=only)
        if fault.at in ("body", "end"):
            at = fault.after if fault.at == "body" else len(body)
            await stream.body(body[:at], end=False)
            if await self._acted(fault, stream, id_):
                return
            body = body[at:]
        if not only:
            await self._finish(fault, stream, body, trailers)

    async def _finish(self, fault: Fault, stream: Stream, body: bytes, trailers: Headers) -> None:
        if fault.pace:
            for byte in body:
                await stream.body(bytes((byte,)), end=False)
                await asyncio.sleep(fault.pace)
            body = b""
        if body:  # with the end on the last frame, as servers do
            await stream.body(body, end=not trailers)
        elif not trailers:
            stream.end()
        if trailers:
            stream.head(trailers, end=True)

    async def _acted(self, fault: Fault, stream: Stream, id_: str) -> bool:
        """Do what the fault says; return True when that was the last of this stream."""
        if fault.do is None:
            return False
        await self._act(fault, stream, id_)
        return fault.do != "leave"

    async def _act(self, fault: Fault, stream: Stream, id_: str) -> None:
        if fault.do == "reset":
            await flush(self.writer)
            reset(self.writer)
        elif fault.do == "close":
            self.writer.close()
        elif fault.do == "garbage":
            self.write(GARBAGE)
            self.writer.close()
        elif fault.do == "stall":
            while (await stream.heard.get()).kind != "RstStream":  # nothing is granted, either
                pass
            self._ledger.abandoned[id_] += 1
        elif fault.do == "rst":
            stream.reset(fault.code)
        else:
            self.last = stream.number if fault.do == "leave" else max(stream.number - 2, 0)
            self.write(self.wire.goaway(self.last))


def _plain(fault: Fault, id_: str) -> Answer:
    body = (id_.encode() + b"\n").ljust(fault.size, b".")[: fault.size]
    head = [(":status", str(fault.status))]
    if fault.framing == "length":
        head.append(("content-length", str(len(body) + fault.length)))
    if fault.retry_after:
        head.append(("retry-after", fault.retry_after))
    return head, body, []


def _grpc(fault: Fault, id_: str) -> Answer:
    head = [(":status", str(fault.status)), ("content-type", "application/grpc")]
    status = [("grpc-status", str(fault.grpc))]
    if fault.grpc:
        status.append(("grpc-message", "as asked"))
    if fault.retry_after:
        head.append(("retry-after", fault.retry_after))
    if fault.only:
        return [*head, *status], b"", []
    if fault.grpc:
        return head, b"", status
    message = (id_.encode() + b"\n").ljust(fault.size, b".")[: fault.size]
    return head, struct.pack(">?I", False, len(message)) + message, status

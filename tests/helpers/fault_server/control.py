"""
What is set and asked from outside: a JSON object a line on standard input, its answer on standard output.

    {"mode": "serve"}     answer requests as they ask
    {"mode": "closed"}    nobody listens: connections are refused
    {"mode": "reset"}     connections are accepted and reset
    {"mode": "silent"}    connections are accepted, and nothing is heard or said on them
    {"mode": "nonsense"}  connections are greeted with what is neither HTTP nor TLS, and closed
    {"hang up": true}     reset every connection that is open now
    {"counts": true}      answers `{"received": {ID: N}, "executed": {ID: N}, …}`
    {"forget": true}      count from zero

The end of standard input ends the server, so none survives its test.
"""

import asyncio
import contextlib
import json
import sys

from . import http1, http2
from .connection import reset
from .ledger import Ledger

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GREETING = b"220 mail.example.com ESMTP at your service\r\n"
MODES = ("serve", "closed", "reset", "silent", "nonsense")


class Server:
    """One port, in one of the modes."""

    def __init__(self, port: int) -> None:
        self.ledger = Ledger()
        self._port = port
        self._mode = "serve"
        self._open: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None

    async def run(self) -> None:
        """Listen, and obey until nobody has orders any more."""
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        await self._listen()
        print(json.dumps({"port": self._port}), flush=True)
        while line := await orders.readline():
            print(json.dumps(await self.obey(json.loads(line))), flush=True)

    async def obey(self, order: dict[str, object]) -> dict[str, object]:
        """Do what an order says, and return the answer."""
        match order:
            case {"mode": str(mode)} if mode in MODES:
                await self._become(mode)
                return {"mode": mode}
            case {"hang up": True}:
                return {"hung up": self._hang_up()}
            case {"counts": True}:
                return {**self.ledger.counts()}
            case {"forget": True}:
                self.ledger.forget()
                return {"forgotten": True}
        return {"error": f"not understood: {order}"}

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, reuse_address=True, limit=1 << 20, backlog=1024
        )

    async def _become(self, mode: str) -> None:
        """Change the mode; connections of the one before have no place in the new one."""
        self._mode = mode
        self._hang_up()
        if mode == "closed" and self._listening is not None:
            self._listening.close()
            self._listening = None
        elif mode != "closed" and self._listening is None:
            await self._listen()

    def _hang_up(self) -> int:
        count = len(self._open)
        for writer in list(self._open):
            reset(writer)
        return count

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ledger.connections += 1
        if self._mode == "reset":
            reset(writer)
            return
        self._open.add(writer)
        try:
            # The end of the process ends us, too; asyncio would complain of that (CPython 3.11).
            with contextlib.suppress(
                asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
            ):
                if self._mode == "silent":
                    await writer.wait_closed()
                    return
                if self._mode == "nonsense":
                    writer.write(_GREETING)
                    return
                first = await reader.readexactly(4)
                serve = http2.serve if _PREFACE.startswith(first) else http1.serve
                await serve(reader, writer, self.ledger, first)
        finally:
            self._open.discard(writer)
            writer.close()

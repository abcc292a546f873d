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
    {"heal": true}        whoever was ill is well

There are three endpoints, each with a port: the first is what is meant above; its *twin* always
serves; and one is *ill*, which serves as well but says of its health that it does not.

The end of standard input ends the server, so none survives its test.
"""

import asyncio
import contextlib
import functools
import json
import sys
from collections.abc import Sequence

from . import http1, http2
from .connection import reset
from .ledger import Ledger, Place

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GREETING = b"220 mail.example.com ESMTP at your service\r\n"
MODES = ("serve", "closed", "reset", "silent", "nonsense")


class Server:
    """
    One port in one of the modes, and two more.

    Args:
        ports: Of the first endpoint, of its twin and of the one that is ill.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.ledger = Ledger()
        self._port, *others = ports
        others_of: tuple[Place, ...] = ("twin", "ill")
        self._others = {
            port: self.ledger.at(place) for port, place in zip(others, others_of, strict=True)
        }
        self._mode = "serve"
        self._open: set[asyncio.StreamWriter] = set()
        self._listening: asyncio.Server | None = None

    async def run(self) -> None:
        """Listen, and obey until nobody has orders any more."""
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        await self._listen()
        further = [await self._serve(port, ledger) for port, ledger in self._others.items()]
        print(json.dumps({"port": self._port}), flush=True)
        while line := await orders.readline():
            print(json.dumps(await self.obey(json.loads(line))), flush=True)
        for server in further:
            server.close()

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
            case {"heal": True}:
                for ledger in self._others.values():
                    ledger.well = True
                return {"healed": True}
        return {"error": f"not understood: {order}"}

    async def _listen(self) -> None:
        self._listening = await self._serve(self._port, self.ledger)

    async def _serve(self, port: int, ledger: Ledger) -> asyncio.Server:
        return await asyncio.start_server(
            functools.partial(self._accept, ledger), "127.0.0.1", port,
            reuse_address=True, limit=1 << 20, backlog=1024,
        )  # fmt: skip

    async def _become(self, mode: str) -> None:
        """Change the mode; connections of the one before have no place in the new one."""
        if mode == self._mode:
            return
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

    async def _accept(
        self, ledger: Ledger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.ledger.connections += 1
        mode = self._mode if ledger is self.ledger else "serve"
        if mode == "reset":
            reset(writer)
            return
        self._open.add(writer)
        try:
            # The end of the process ends us, too; asyncio would complain of that (CPython 3.11).
            with contextlib.suppress(
                asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
            ):
                if mode == "silent":
                    await writer.wait_closed()
                    return
                if mode == "nonsense":
                    writer.write(_GREETING)
                    return
                first = await reader.readexactly(4)
                serve = http2.serve if _PREFACE.startswith(first) else http1.serve
                await serve(reader, writer, ledger, first)
        finally:
            self._open.discard(writer)
            writer.close()

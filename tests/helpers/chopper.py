"""Stands between two sidecars, passes everything on, and cuts connections at random bytes."""

import asyncio
import random
from typing import Self

from tests.helpers.fault_server.connection import reset


class Chopper:
    """
    Attributes:
        cuts: How many connections it has cut.
    """

    def __init__(self, port: int, target: int, *, mean: int, seed: int) -> None:
        """
        Prepare it; `async with` lets it begin.

        Args:
            port: Where it listens.
            target: To where it passes on.
            mean: Bytes that a connection carries, on average, before it is cut.
            seed: Of where the cuts are.
        """
        self.cuts = 0
        self._port = port
        self._target = target
        self._mean = mean
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, reuse_address=True
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Tasks of our own: those of `start_server` nobody can wait for.
        task = asyncio.create_task(self._stand_between(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stand_between(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            reset(writer)
            return
        except asyncio.CancelledError:
            reset(writer)
            raise
        life = _Life(int(self._random.expovariate(1 / self._mean)))
        both = [
            asyncio.ensure_future(self._pass_on(reader, onward, life)),
            asyncio.ensure_future(self._pass_on(there, writer, life)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            reset(writer)
            reset(onward)
            await asyncio.gather(*both, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: "_Life"
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data[: life.left])
                life.left -= len(data)
                if life.left <= 0:
                    self.cuts += 1
                    return
        except ConnectionError:
            pass


class _Life:
    def __init__(self, left: int) -> None:
        self.left = left

"""Servers in the test's own process, of which nothing is left when they end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """
    Serve on a free port (or `port`) until the end of the block, and yield the port.

    Connections end with it.  Those of `asyncio.start_server` outlive their server, and where the
    loop ends before `serve` has taken its first step, nobody ever closes them.
    """
    conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():
            writer.transport.abort()
            return
        task = asyncio.create_task(converse(reader, writer))
        conversations[task] = writer
        task.add_done_callback(lambda task: conversations.pop(task, None))

    server = await asyncio.start_server(accept, "127.0.0.1", port, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        # Who came in that moment is accepted already, and gets its transport some steps later.
        for _ in range(10):
            await asyncio.sleep(0)
        left = dict(conversations)
        for task, writer in left.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # the last ones learn that they are closed

"""Wait for what nobody announces: a port that opens, a health check that turns."""

import asyncio
from collections.abc import Awaitable, Callable

POLL = 0.05


async def until(condition: Callable[[], Awaitable[bool]], every: float = POLL) -> None:
    """Ask until the answer is yes; the caller sets the limit with `asyncio.timeout`."""
    while not await condition():
        await asyncio.sleep(every)

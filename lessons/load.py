"""
Requests that come whether the ones before were answered or not, from people with little patience.

That is what a service meets in the world: its visitors do not slow down because it does.
"""

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Seen:
    """
    What the visitors of one page saw.

    Attributes:
        outcomes: How often each: an HTTP status, or what went wrong.
        latencies: Seconds, of those that were answered with 200.
        bodies: Of the same.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    bodies: Counter[bytes] = field(default_factory=Counter)

    @property
    def answered(self) -> float:
        """Return the share that was answered with 200, in percent."""
        total = self.outcomes.total()
        return 100 * self.outcomes["200"] / total if total else 0.0

    def latency(self, share: float) -> float | None:
        """Return the seconds within which `share` of the answers came."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


async def visit(
    urls: dict[str, str], rate: float, seconds: float, patience: float
) -> dict[str, Seen]:
    """
    Ask for each page in turn, at a steady rate, and return what was seen of each.

    Args:
        urls: By the page's name.
        rate: Requests a second, of all pages together.
        seconds: For how long.
        patience: Seconds after which a visitor goes away, without a word, as a phone does that has
            lost its network: who says so by closing the connection is noticed at once, and what is
            done for him ends.
    """
    seen = {name: Seen() for name in urls}
    names = list(urls)
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    forgotten: list[asyncio.Task[None]] = []
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        asyncio.TaskGroup() as visitors,
    ):
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            name = names[number % len(names)]
            asked = asyncio.ensure_future(_ask(session, urls[name], seen[name], patience))
            forgotten.append(asked)
            visitors.create_task(_wait(asked, seen[name], patience))
    for asked in forgotten:
        asked.cancel()
    await asyncio.gather(*forgotten, return_exceptions=True)
    return seen


async def _wait(asked: asyncio.Task[None], seen: Seen, patience: float) -> None:
    done, _ = await asyncio.wait({asked}, timeout=patience)
    if not done:
        seen.outcomes["no answer in time"] += 1


async def _ask(session: aiohttp.ClientSession, url: str, seen: Seen, patience: float) -> None:
    began = time.monotonic()
    try:
        async with session.get(url, headers=trace()) as answer:
            body = await answer.read()
    except aiohttp.ClientError as error:
        if time.monotonic() - began > patience:
            return
        seen.outcomes[type(error).__name__] += 1
    else:
        if time.monotonic() - began > patience:
            return  # nobody is there any more
        seen.outcomes[str(answer.status)] += 1
        if answer.status == 200:
            seen.latencies.append(time.monotonic() - began)
            seen.bodies[body] += 1


def trace() -> dict[str, str]:
    """Return a trace context: by it, a sidecar tells which calls of its app belong to which request."""
    return {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}

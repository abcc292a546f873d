"""
A steady load of requests on one URL, and an honest count of what came back.

Each of a few workers sends at its own beat, evenly shifted against the others, over connections
that are kept open.  A request that is not answered with 200 and the body that was expected, for
whatever reason, has failed.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=10)
REMEMBERED = 10_000


class Load:
    """
    Requests at a steady rate.

    Args:
        url: Where to.
        rate: Requests a second, together.
        is_right: Says whether a body is what was expected.
        workers: How many requests can be under way at once.

    Attributes:
        answered: How many requests were answered rightly.
        failures: How many were not, by what happened.
    """

    def __init__(
        self, url: str, rate: float, is_right: Callable[[bytes], bool], workers: int = 16
    ) -> None:
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self._url = url
        self._period = workers / rate
        self._is_right = is_right
        self._workers = workers
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._stopping = asyncio.Event()

    @property
    def requests(self) -> int:
        return self.answered + self.failures.total()

    def latency(self, share: float) -> float | None:
        """Return the seconds within which `share` of the last requests were answered."""
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    async def run(self) -> None:
        """Send until `stop`; returns when the last request has been answered."""
        # trust_env stays off: a proxy of the user's environment has no business here.
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT) as session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._workers):
                group.create_task(self._worker(session, number * self._period / self._workers))

    def stop(self) -> None:
        """Send no more; what is under way is still waited for."""
        self._stopping.set()

    async def once(self, session: aiohttp.ClientSession) -> str | None:
        """Send one request; return what was wrong with the answer, if anything."""
        try:
            async with session.get(self._url) as answer:
                body = await answer.read()
        except TimeoutError:
            return f"no answer within {TIMEOUT.total:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or type(error).__name__
        if answer.status != 200:
            return f"{answer.status} {body[:200].decode(errors='replace').strip()}"
        return None if self._is_right(body) else "200 with a body that is not the storefront's"

    async def _worker(self, session: aiohttp.ClientSession, delay: float) -> None:
        due = time.monotonic() + delay
        while not await self._stopped_before(due):
            began = time.monotonic()
            problem = await self.once(session)
            if problem is None:
                self.answered += 1
                self._latencies.append(time.monotonic() - began)
            else:
                self.failures[problem] += 1
            # After an answer that took long the beat goes on from now: no burst to catch up.
            due = max(due + self._period, time.monotonic())

    async def _stopped_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout(due - time.monotonic()):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

"""
Relief: who has to go when the process runs out of memory.

`admission.py` keeps further connections out; but those that are there may hold more than there is:
each of them is bounded, their sum is not.  What they hold waits for a side that does not take it, and
the longer it has not, the less likely it is that somebody misses it.  So, above the limit:

    at once              the allocator gives back what is free, and new connections are refused
    as long as it lasts  those are reset that have been stalled for longest, until enough would be free
                         to come down to nine tenths of the limit
    an eighth above      the same without waiting for anybody to have stalled: those that hold most
                         come next, for beyond that the kernel would end us all

Refusing alone would not end: who holds much and reads nothing would keep everybody else out.

**Stalled** is for whom a good deal waits to be sent, and not a byte of it has left for some seconds.
A download that goes on, however slowly, is not stalled as long as the kernel takes something of it; of
two that have come to rest, the one that has rested longer goes first.

What goes is one exchange or opaque connection, and its neighbours on the same HTTP/2 connection stay.
It ends with `memory-pressure`: as an answer where none has begun, as a reset else; an answer that is
torn must not look like a whole one.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from meshproxy.codec.http2 import ENHANCE_YOUR_CALM
from meshproxy.flow import LOW_WATER, Connection
from meshproxy.multiplex import Link, Stream

from .admission import Admission

log = logging.getLogger("meshproxy.relief")

URGENT: Final = 1.125
"""Times the limit above which nobody is given time; nine tenths of a container, by default."""

AIM: Final = 0.9
"""Share of the limit that is left in use; with less of a distance, the next one would be refused."""

STALLED: Final = 2.0
"""Seconds without a byte after which somebody may be reset."""

LEAST: Final = LOW_WATER
"""Bytes that are worth it."""

COMPLAIN: Final = 10.0
"""Seconds between two words in the log about it."""

CODE: Final = "memory-pressure"


class Holder(NamedTuple):
    """
    Somebody for whom bytes wait.

    Attributes:
        side: Who should take them; the same object at each look.
        held: How many wait.
        cut: Ends it.
    """

    side: object
    held: int
    cut: Callable[[], None]


class Relief:
    """Of one process; looks when it is told to, and time is an argument."""

    def __init__(self, admission: Admission, refused: Callable[[str, str], None]) -> None:
        """
        Args:
            admission: Knows who has connections, how much memory there is, and how much is in use.
            refused: Told direction and code of what was reset, where no exchange is left to count it.
        """
        self._admission = admission
        self._refused = refused
        self._seen: dict[object, tuple[int, float]] = {}  # held, since when it has been so much
        self._complained = -COMPLAIN

    def look(self, now: float) -> None:
        """See whether memory is short, and who holds it."""
        admission = self._admission
        if not admission.short_of_memory:
            self._seen.clear()
            return
        found = [
            holder
            for listener in self._admission.listeners
            for connection in list(listener.accepted)
            for holder in self._holders(connection, listener.direction)
        ]
        self._seen = {holder.side: self._seen_of(holder, now) for holder in found}
        self._relieve(found, now)

    def _seen_of(self, holder: Holder, now: float) -> tuple[int, float]:
        held, since = self._seen.get(holder.side, (-1, now))
        return (held, since) if held == holder.held else (holder.held, now)

    def _relieve(self, found: list[Holder], now: float) -> None:
        admission = self._admission
        excess = admission.in_use - admission.memory * AIM
        patience = STALLED if admission.in_use <= admission.memory * URGENT else 0.0
        freed = cut = 0
        for holder in sorted(found, key=self._worth):
            if freed >= excess or now - self._seen[holder.side][1] < patience:
                break
            holder.cut()
            freed += holder.held
            cut += 1
        if cut and now >= self._complained + COMPLAIN:
            self._complained = now
            log.warning(
                "short of memory: %d MiB in use, above %d; %d that had been stalled for longest were"
                " reset (%d KiB)",
                admission.in_use >> 20, admission.memory >> 20, cut, freed >> 10,
            )  # fmt: skip
        # What they held goes with the callbacks of this turn; the next look tells.

    def _worth(self, holder: Holder) -> tuple[float, int]:
        """Return what comes first: the longest stall, then the most bytes."""
        return self._seen[holder.side][1], -holder.held

    # Who holds something --------------------------------------------------------------------------

    def _holders(self, connection: Connection, direction: str) -> Iterator[Holder]:
        if isinstance(connection, Link):
            for stream in list(connection.session.streams.values()):
                yield from self._of(
                    stream, stream.exchange, partial(self._reset, stream, direction)
                )
            yield from self._of(connection, None, partial(self._abort, connection, direction))
        else:
            work = getattr(connection, "exchange", None)  # an `Arrival` has none yet
            yield from self._of(connection, work, partial(self._abort, connection, direction))

    def _of(
        self, side: Connection | Stream[Any, Any], work: Any, end: Callable[[], None]
    ) -> Iterator[Holder]:
        """Return a side, as far as bytes wait for it, and the other side of what it works for."""
        working = work is not None and not work.done
        held = side.unsent
        if held >= LEAST:
            yield Holder(side, held, work.on_memory_short if working else end)
        upstream = work.upstream if working else None
        if upstream is not None and (held := upstream.unsent) >= LEAST:
            yield Holder(upstream, held, work.on_memory_short)

    def _reset(self, stream: Stream[Any, Any], direction: str) -> None:
        """End one that has been answered; only what was said waits to leave."""
        self._refused(direction, CODE)
        stream.end_by_reset(ENHANCE_YOUR_CALM)

    def _abort(self, connection: Connection, direction: str) -> None:
        """The same of a connection."""
        self._refused(direction, CODE)
        connection.abort()

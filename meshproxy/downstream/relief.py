"""
Relief: who has to go when the process runs out of memory.

`admission.py` keeps further connections out; but those that are there may hold more than there is:
each of them is bounded, their sum is not.  What they hold waits for a side that does not take it, and
the longer it has not, the less likely it is that somebody misses it.  So:

    a tenth below        the allocator gives back what is free, and each side may hold little
    above the limit      new connections are refused, and
    as long as it lasts  those are reset that have been stalled for longest, until enough would be free
                         to come down to nine tenths of the limit
    an eighth above      the same without waiting for anybody to have stalled: those that hold most
                         come next, for beyond that the kernel would end us all

Refusing alone would not end: who holds much and reads nothing would keep everybody else out.

**Holding little** is what keeps the sum from growing while all this happens (`flow.Turn.tighten`).  A
turn of the loop may bring more than there is: some hundred senders have filled what is read at once
before anybody looks at the clock.  So it is what has come that tells when to look, as well as the time.

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
from meshproxy.flow import TIGHT, Connection, Turn
from meshproxy.multiplex import Link, Stream

from .admission import AIM, Admission

log = logging.getLogger("meshproxy.relief")

URGENT: Final = 1.125
"""Times the limit above which nobody is given time; nine tenths of a container, by default."""

AT_EASE: Final = 0.85
"""Times the limit below which all may hold again what serves them best."""

STALLED: Final = 2.0
"""Seconds without a byte after which somebody may be reset."""

LEAST: Final = TIGHT // 2
"""Bytes that are worth it; less than each may hold even then."""

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

    def __init__(
        self, admission: Admission, turn: Turn, refused: Callable[[str, str], None]
    ) -> None:
        """
        Args:
            admission: Knows who has connections, how much memory there is, and how much is in use.
            turn: Says how much each connection may hold, and when much has come.
            refused: Told direction and code of what was reset, where no exchange is left to count it.
        """
        self._admission = admission
        self._turn = turn
        if admission.memory:
            turn.on_much = self._on_much
        self._refused = refused
        self._seen: dict[object, tuple[int, float]] = {}  # held, since when it has been so much
        self._complained = -COMPLAIN

    def look(self, now: float) -> None:
        """See whether memory is short, and who holds it."""
        admission = self._admission
        short = admission.short_of_memory
        self._tighten()
        if not short:
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

    def _on_much(self) -> None:
        """Nobody is reset here: it may be the one of whom something has just come."""
        self._admission.look()
        self._tighten()

    def _tighten(self) -> None:
        tight = self._admission.in_use > self._admission.memory * (
            AT_EASE if self._turn.tight else AIM
        )
        if tight is not self._turn.tight:
            self._turn.tighten(tight)

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

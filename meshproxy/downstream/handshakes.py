"""
Handshakes: whose turn it is to begin one.

A TLS handshake takes a millisecond of a core, a hundred times what a request takes, and can be asked
for with one packet.  So whoever wants to stop a proxy need not get in: it suffices to knock.  If all
that knock were let in at once, each request on the connections that stand would wait until all their
handshakes had been worked on.

    first bytes are those of TLS ─▶ queue ─▶ a few begin in each turn of the loop ─▶ handshake
                                      └─ full: reset, at once

**A turn of the loop is the measure of fairness.**  Between two turns every connection that has
something to read is served, so what a request waits for is the work of a few handshakes, however many
want one.  While nothing else is to be done, turns come one after the other, and handshakes take
all of the core: nothing is lost to a rate that somebody had to guess.

**A queue that is bounded by what can be done in half a second** keeps those in it from waiting in
vain: without a bound, under more than can be done, each would be begun when its client has given up.
Who is reset tries again, or elsewhere (between sidecars: `connect-failed`, with a retry).

What is slow about a handshake is the work.  Its waiting for a client costs nobody anything, so there
is no limit of handshakes under way that a few slow clients could use up.
"""

import asyncio
from collections import deque
from typing import Final

EACH_TURN: Final = 2
"""Handshakes that begin in one turn of the loop."""

MOST_WAITING: Final = 256
"""Who waits for a turn; who comes then is reset."""


class Handshakes:
    """Those of one loop, whatever the listener."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        each_turn: int = EACH_TURN,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._loop = loop
        self._each_turn = self._left = each_turn
        self._most_waiting = most_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """How many want to begin."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Nobody else may wait."""
        return len(self._waiting) >= self._most_waiting

    async def turn(self) -> bool:
        """Wait for one's turn; return False, at once, where too many wait already."""
        self._look_after()
        if self._left and not self._waiting:
            self._left -= 1
            return True
        if self.full:
            return False
        mine = self._loop.create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:  # it has waited for too long, or the listener closes
            if mine in self._waiting:
                self._waiting.remove(mine)
            raise
        return True

    def _look_after(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._on_turn)

    def _on_turn(self) -> None:
        self._scheduled = False
        self._left = self._each_turn
        while self._waiting and self._left:
            first = self._waiting.popleft()
            if not first.done():  # it was cancelled, and has not yet had its say
                first.set_result(None)
                self._left -= 1
        if self._left < self._each_turn:
            self._look_after()

"""
A window that moves over thousands of endpoints, so that each is asked a few times in near succession.

Theory of operation.  What a request touches of an endpoint (its figures, its pool, a connection, the
kernel's socket) is some ten kilobytes.  Of ten endpoints all of it stays in the processor's caches;
of thousands drawn at random hardly anything does, since each was last asked thousands of requests
ago.  So two are not drawn from everywhere, but from `WIDTH` places that lie side by side, and these
move on, one place with every `TURNS` requests: an endpoint that comes by is asked about as many
times, then it rests until all others have had their turns.

**Order.**  Endpoints are laid in an order that each balancer makes by chance.  The windows of two
proxies are thus at different places and have different neighbours: what many proxies send one
endpoint adds up to an even load, though what each of them sends comes in little bursts.

**Shares.**  Of the two, the first is not left to chance: its place in the window depends on the turn,
so that in one revolution every endpoint is first `TURNS` times.  Endpoints that are equally good
share exactly alike, and `WIDTH` requests in a row have as many different first ones.  The second is
drawn: who answers slower than its neighbours loses its turns to them.

**Load.**  The window only spares idle time: who is picked from it and has work to do is not asked.
Then the two are drawn from all endpoints, as everywhere else (`two_choices`).  With many more
requests in flight than `WIDTH`, most are.  So no request waits behind another here that would not do
so there; and to find somebody busy who was idle a moment ago tells more than to find a stranger.

**Time.**  After a tenth of a second nothing is warm any more and there is nothing to be gained, so
whoever comes by does not stay longer: where requests are few, the window moves with each of them,
and an endpoint has one in each revolution.

**Bounds.**  Endpoints that come, go or are ejected make another balancer, with another order: nobody
waits at the end of a queue that always begins anew.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic

from .endpoint import E

WIDTH: Final = 64
"""Places: several times the requests that a busy proxy's turn of the loop brings at once."""

TURNS: Final = 4
"""Requests with which the window moves by a place; what the first of them costs, they share."""

MANY: Final = 512
"""Endpoints from which on it is worth it: so many are still found in the last of the caches."""

_APART: Final = WIDTH // TURNS
_NEWEST: Final = WIDTH - _APART
_STAY: Final = 0.1 / WIDTH
"""Seconds at one place, at most; a tenth of one over all of them."""


class MovingWindow(Generic[E]):
    """Draws two different endpoints; which one is better says somebody else."""

    __slots__ = ("_count", "_random", "_ring", "_start", "_turn", "_until")

    def __init__(self, endpoints: Sequence[E], random: Callable[[], float]) -> None:
        """`random` gives points in [0, 1); there are at least `WIDTH` endpoints."""
        ring = list(endpoints)
        for last in range(len(ring) - 1, 0, -1):  # Fisher and Yates's shuffle
            place = int(random() * (last + 1))
            ring[last], ring[place] = ring[place], ring[last]
        self._count = len(ring)
        self._ring = (*ring, *ring[:WIDTH])  # a window over the end needs no second look
        self._random = random
        self._start = 0
        self._turn = 0
        self._until = 0.0

    def draw(self, now: float) -> tuple[E, E]:
        """Return two for a request that comes `now`."""
        start, turn = self._start, self._turn + 1
        if turn == TURNS or now > self._until:
            turn = 0
            start += 1
            if start == self._count:
                start = 0
            self._start = start
            self._until = now + _STAY
        self._turn = turn
        ring, place = self._ring, _NEWEST - turn * _APART
        other = int(self._random() * (WIDTH - 1))
        if other >= place:
            other += 1
        return ring[start + place], ring[start + other]

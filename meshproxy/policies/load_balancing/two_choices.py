"""
Two endpoints drawn at random by weight: what `least_request` and `peak_ewma` choose from.

Theory of operation.  Sending each request to a random endpoint leaves the busiest of n with about
log n / log log n times its fair share.  Looking at all of them and taking the idlest is better in
theory and worse in practice: every proxy sees the same idle endpoint and all of them rush there,
a herd that moves on together.  Drawing *two* at random and taking the better one has neither flaw:
the worst share falls to log log n, an exponential gain from one second look (Mitzenmacher, "The
Power of Two Choices in Randomized Load Balancing", 2001), and chance keeps the proxies apart.
Envoy and Linkerd draw two as well.

An endpoint is drawn in proportion to its weight, so an idle mesh already shares by weight.  Where
all weights are equal, as nearly always, places are counted instead of measured, and the subclasses
do that in `pick` itself: a call would cost as much as the choice.  Where there are very many of
them, the two come from a part of them that moves on (`moving_window`), unless it is busy.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Generic

from .endpoint import E
from .moving_window import MANY, MovingWindow


class TwoChoices(Generic[E]):
    """Draws two different endpoints; which one is better says the subclass."""

    __slots__ = (
        "_count", "_endpoints", "_ends", "_level", "_others", "_places", "_random", "_total",
        "_window",
    )  # fmt: skip

    def __init__(self, endpoints: Sequence[E], random: Callable[[], float]) -> None:
        """`random` gives points in [0, 1)."""
        self._random = random
        # Endpoints laid end to end on a line, each as long as its weight.
        self._endpoints = tuple(e for e in endpoints if e.weight)
        self._ends = tuple(accumulate(e.weight for e in self._endpoints))
        self._total = self._ends[-1] if self._ends else 0
        self._places: dict[E, int] | None = None  # made when somebody is avoided
        self._count = len(self._endpoints)
        self._others = self._count - 1
        level = self._count > 1 and len({e.weight for e in self._endpoints}) == 1
        self._level = self._endpoints if level else None
        self._window: MovingWindow[E] | None = None

    def move(self) -> None:
        """Let a window move over the endpoints, if they are many and all of one weight."""
        if self._level is not None and self._count >= MANY:
            self._window = MovingWindow(self._level, self._random)

    def better(self, first: E, second: E) -> E:
        """Return the one of two that shall have the request; at a tie the first."""
        raise NotImplementedError

    def draw(self, avoid: Collection[E] | None) -> E | None:
        """Return the better one of two, whatever their weights and whoever is avoided."""
        endpoints = self._endpoints
        if self._count == 1:  # as beside an app: there is nobody else
            return endpoints[0]
        if not endpoints:
            return None
        out = () if avoid is None else self._places_of(avoid)
        left = self._count - len(out)
        if not left:
            return endpoints[0]
        place = self._point(out)
        if left == 1:
            return endpoints[place]
        if not out:
            other = self._point((place,))
        else:
            other = self._point(tuple(sorted((place, *out))))
        return self.better(endpoints[place], endpoints[other])

    def _places_of(self, some: Collection[E]) -> tuple[int, ...]:
        """Return where they are, in order; strangers are nowhere."""
        places = self._places
        if places is None:
            places = self._places = {e: place for place, e in enumerate(self._endpoints)}
        return tuple(sorted({places[e] for e in some if e in places}))

    def _point(self, out: tuple[int, ...]) -> int:
        """Return the place of a random point on the line, with the places `out` (in order) cut out of it."""
        endpoints, ends, last = self._endpoints, self._ends, self._count - 1
        left = self._total
        for place in out:
            left -= endpoints[place].weight
        point = self._random() * left
        for place in out:
            weight = endpoints[place].weight
            if point >= ends[place] - weight:
                point += weight
        while last in out:  # a point rounded up to the very end must not fall on who is out
            last -= 1
        return bisect_right(ends, point, 0, last)

"""
Which endpoint gets the next request: power of two choices, least requests.

Theory of operation.  Sending each request to a random endpoint leaves the busiest of n with about
log n / log log n times its fair share.  Looking at all of them and taking the idlest is better in
theory and worse in practice: every proxy sees the same idle endpoint and all of them rush there,
a herd that moves on together.  Drawing *two* at random and taking the one with fewer requests in
flight has neither flaw: the worst share falls to log log n, an exponential gain from one second
look (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and chance
keeps the proxies apart.  Envoy's LEAST_REQUEST and Linkerd draw two as well.

Requests in flight are a signal that needs no measuring: an endpoint that slows down holds its
requests longer, so its count rises and it gets fewer, at once and without averages.

Weights count twice.  An endpoint is drawn in proportion to its weight, so an idle mesh already
shares by weight; and of the two drawn the one with fewer requests *per weight* wins, so a loaded
mesh does too.  At equal load the one drawn first wins.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar


class Endpoint(Protocol):
    """
    What the choice looks at.

    Attributes:
        active: Requests in flight.
        weight: Share relative to the others; 0 means none.
    """

    @property
    def active(self) -> int: ...
    @property
    def weight(self) -> int: ...


E = TypeVar("E", bound=Endpoint)


class LeastRequest(Generic[E]):
    """Picks endpoints; what it learns about a tuple of them it keeps until another one comes."""

    __slots__ = ("_level", "_line", "_measured")

    def __init__(self) -> None:
        self._measured: Sequence[E] | None = None
        self._level: Sequence[E] | None = None  # those measured, if all have the same weight
        self._line = _Line[E](())

    def pick(
        self, endpoints: Sequence[E], random: Callable[[], float], avoid: E | None = None
    ) -> E | None:
        """
        Return the endpoint for the next request, or None when none has any weight.

        Args:
            endpoints: Those that may be called.  A tuple is measured once, so weights must not
                change under it: what changes comes as a new tuple.
            random: Gives points in [0, 1).
            avoid: The endpoint of the attempt that failed; picked again only when it is alone.
        """
        count = len(endpoints)
        if endpoints is self._level and avoid is None:
            # As nearly always: then places can be counted instead of measured.  One random number
            # is enough for both draws: what is behind the point says nothing about what is before.
            point = random() * count
            place = int(point)
            other = int((point - place) * (count - 1))
            first, second = endpoints[place], endpoints[other + 1 if other >= place else other]
            return second if second.active < first.active else first
        if count == 1:
            return endpoints[0] if endpoints[0].weight else None
        if count == 2:
            return _of_two(endpoints[0], endpoints[1], random, avoid)
        if avoid is not None:
            others = tuple(e for e in endpoints if e is not avoid)
            if len(others) < count:
                found = self.pick(others, random)
                return avoid if found is None and avoid.weight else found
        if endpoints is not self._measured:
            self._line = _Line(endpoints)
            # A list could change and still be the same object: it is measured each time.
            self._measured = endpoints if isinstance(endpoints, tuple) else None
            self._level = self._measured if self._line.level else None
        return self._line.pick(random)


def _of_two(first: E, second: E, random: Callable[[], float], avoid: E | None) -> E | None:
    # Drawing two of two draws both: only a tie is left to chance.
    if not second.weight or (second is avoid and first.weight):
        return first if first.weight else None
    if not first.weight or first is avoid:
        return second
    load_of_first = first.active * second.weight  # both sides times both weights: no division
    load_of_second = second.active * first.weight
    if load_of_first == load_of_second:
        total = first.weight + second.weight
        return first if random() * total < first.weight else second
    return first if load_of_first < load_of_second else second


class _Line(Generic[E]):
    """Endpoints laid end to end on a line, each as long as its weight."""

    __slots__ = ("_endpoints", "_ends", "_last", "_total", "level")

    def __init__(self, endpoints: Sequence[E]) -> None:
        self._endpoints = tuple(e for e in endpoints if e.weight)
        self._ends = tuple(accumulate(e.weight for e in self._endpoints))
        self._total = self._ends[-1] if self._ends else 0
        self._last = len(self._ends) - 1
        self.level = len({e.weight for e in endpoints}) == 1 and self._total > 0

    def pick(self, random: Callable[[], float]) -> E | None:
        endpoints, ends, last = self._endpoints, self._ends, self._last
        if last < 1:
            return endpoints[0] if endpoints else None
        place = bisect_right(ends, random() * self._total, 0, last)
        first = endpoints[place]
        # The second is another one: draw from the line with the first cut out of it.
        point = random() * (self._total - first.weight)
        if point >= ends[place] - first.weight:
            point += first.weight
        second = endpoints[bisect_right(ends, point, 0, last)]
        if second.active * first.weight < first.active * second.weight:
            return second
        return first

"""
Least request: of two drawn at random, the one with fewer requests in flight per weight.

Requests in flight are a signal that needs no measuring: an endpoint that slows down holds its
requests longer, so its count rises and it gets fewer, at once and without averages.  Weights count
twice: in the draw (see `two_choices`), so that an idle mesh shares by weight, and in the choice, so
that a loaded one does, too.  Envoy's LEAST_REQUEST with two choices is the same.

Called from: `Cluster.pick`.   Configured by: `LoadBalancingSpec.algorithm`.
"""

from collections.abc import Callable, Collection, Sequence

from .endpoint import E
from .two_choices import TwoChoices


class LeastRequest(TwoChoices[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_now",)

    def __init__(
        self, endpoints: Sequence[E], random: Callable[[], float], now: Callable[[], float]
    ) -> None:
        super().__init__(endpoints, random)
        self._now = now
        self.move()

    def pick(self, avoid: Collection[E] | None, key: int | None = None) -> E | None:  # noqa: ARG002
        endpoints = self._level
        if endpoints is None or avoid is not None:
            return self.draw(avoid)
        window = self._window
        if window is not None:
            first, second = window.draw(self._now())
            if not first.active:
                return first
            if not second.active:
                return second
        # As nearly always.  One random number is enough for both draws: what is behind the point
        # says nothing about what is before.
        point = self._random() * self._count
        place = int(point)
        other = int((point - place) * self._others)
        first, second = endpoints[place], endpoints[other + 1 if other >= place else other]
        return second if second.active < first.active else first

    def better(self, first: E, second: E) -> E:
        # Both sides times both weights: no division.
        return second if second.active * first.weight < first.active * second.weight else first

"""
Sharing a route's requests among its backends by weight.

A backend's share is its weight divided by the sum of the weights (Gateway API, `backendRefs`).
The chance itself is an argument, a point in [0, 1): the same point always gives the same backend,
so tests need no statistics.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from .rewrite import HeaderModifier

C = TypeVar("C")


class Backend(Generic[C]):
    """
    One of the places a route sends its requests to.

    Attributes:
        cluster: None when the reference did not resolve.  Its share is then answered 500, and the
            others get no more than theirs: "500 status codes MUST be returned for requests that
            would have otherwise been routed to an invalid backend" (Gateway API, HTTPBackendRef).
        edits: It changes what the endpoint sees of a request.
    """

    __slots__ = ("cluster", "edits", "request_headers", "response_headers")

    def __init__(
        self,
        cluster: C | None,
        request_headers: HeaderModifier | None = None,
        response_headers: HeaderModifier | None = None,
    ) -> None:
        self.cluster = cluster
        self.edits = request_headers is not None
        self.request_headers = request_headers
        self.response_headers = response_headers


class Split(Generic[C]):
    """
    Backends laid end to end on a line, each as long as its weight; a point falls on one.

    Attributes:
        only: The backend that has all the weight; None when several share it, or there is none.
        backends: All, those without weight, too.
    """

    __slots__ = ("_backends", "_ends", "_last", "_total", "backends", "only")

    def __init__(self, weighted: Sequence[tuple[Backend[C], int]]) -> None:
        self.backends = [backend for backend, _ in weighted]
        chosen = [(backend, weight) for backend, weight in weighted if weight > 0]
        self._backends = [backend for backend, _ in chosen]
        self._ends = list(accumulate(weight for _, weight in chosen))
        self._total = self._ends[-1] if chosen else 0
        self._last = len(chosen) - 1
        # Most routes have one backend, or one with all the weight: they need no arithmetic.
        self.only = self._backends[0] if len(chosen) == 1 else None

    def choose(self, point: float) -> Backend[C] | None:
        """
        Return the backend at `point`, or None when no backend has any weight.

        Args:
            point: In [0, 1).
        """
        if self.only is not None:
            return self.only
        if not self._backends:
            return None
        # The upper bound keeps even a point rounded up to the very end on the last backend.
        return self._backends[bisect_right(self._ends, point * self._total, 0, self._last)]

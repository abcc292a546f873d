"""
Round robin: one after the other, each as often as its weight says, spread as evenly as can be.

Each endpoint is due every 1 / weight rounds, and whoever is due first gets the next request
(earliest deadline first, as in Envoy).  So of weights 5, 1, 1 the first is not asked five times in
a row, but the others come in between; and a pick costs a step in a heap, however many endpoints
there are.  Each begins at a random moment of its first round: otherwise all proxies that got the
same configuration at the same time would walk along the same endpoints in step.

It looks at nothing but the order: an endpoint that is slow, or has fallen behind, gets as much as
the others.  Good where requests cost alike and evenness can be seen by counting.

Called from: `Cluster.pick`.   Configured by: `LoadBalancingSpec.algorithm`.
"""

from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic

from .endpoint import E


class RoundRobin(Generic[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_due",)

    def __init__(self, endpoints: Sequence[E], random: Callable[[], float]) -> None:
        # The number settles ties: endpoints have no order.
        self._due = [
            (random() / e.weight, number, e) for number, e in enumerate(endpoints) if e.weight
        ]
        heapify(self._due)

    def pick(self, avoid: Collection[E] | None, key: int | None = None) -> E | None:  # noqa: ARG002
        due = self._due
        if not due:
            return None
        time, number, endpoint = due[0]
        if avoid is not None and endpoint in avoid:
            return self._pick_past(avoid)
        heapreplace(due, (time + 1 / endpoint.weight, number, endpoint))
        return endpoint

    def _pick_past(self, avoid: Collection[E]) -> E:
        """Pick the first that is not to be avoided; those before it stay due, and come next time."""
        due, passed = self._due, []
        while due and due[0][2] in avoid:
            passed.append(heappop(due))
        if not due:  # it is all the same
            heappush(due, passed.pop(0))
        time, number, endpoint = due[0]
        heapreplace(due, (time + 1 / endpoint.weight, number, endpoint))
        for one in passed:
            heappush(due, one)
        return endpoint

"""What balancers look at, and what they all can do."""

from collections.abc import Collection
from typing import Protocol, TypeVar

from meshproxy.native import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint:
    """
    One server, as balancers see it.

    Attributes:
        name: ``address:port``, by which all proxies of the mesh hash it alike.
        active: Requests in flight.
        weight: Share relative to the others; 0 means none.
        priority: Of its level; lower is nearer.
        since: When it joined a cluster that had others, or came back into service; -inf for those
            that were there from the beginning.
        latency: Seconds, as `peak_ewma` has measured; 0.0 while nothing is known.
        measured: When that was.
    """

    __slots__ = ("active", "latency", "measured", "name", "priority", "since", "weight")

    active: int
    latency: float
    measured: float
    name: str
    priority: int
    since: float
    weight: int


E = TypeVar("E", bound=Endpoint)


class Balancer(Protocol[E]):
    """Picks endpoints."""

    def pick(self, avoid: Collection[E] | None, key: int | None) -> E | None:
        """
        Return the endpoint for the next attempt, or None when none has any weight.

        Args:
            avoid: Endpoints of attempts that have failed, picked again only when there is no
                other: then any of them is.  None at the first attempt.
            key: 64 bits of what shall stay together, for consistent hashing.
        """

"""
Consistent hashing: the same key, the same endpoint, as long as it is there.

Two tables do that, `ring_hash` and `maglev`.  Both are lists of places, each of which belongs to an
endpoint, in a way that all proxies of the mesh compute alike and that changes little when endpoints
come and go.  Here is what they share: how a key finds its endpoint.

A table is made for *all* endpoints of a cluster.  One that may not be called now (ejected, or just
tried) leaves its places where they are: its keys go on to the next place that belongs to another,
and come back to it afterwards.  No other key moves, and nothing has to be computed anew.

A request without a key goes anywhere.

Called from: `Cluster.pick`.   Configured by: `LoadBalancingSpec.algorithm`, `ring_size`.
"""

from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Final, Generic, Protocol

from .endpoint import E

KEYS: Final = 1 << 64
"""How many keys there are."""


def hash_of(data: bytes) -> int:
    """Return a key; the same in all processes, unlike `hash`."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def remixed(key: int) -> int:
    """Return another key, which says no more about the first (the step of SplitMix64)."""
    key = (key + 0x9E3779B97F4A7C15) % KEYS
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 % KEYS
    key = (key ^ key >> 27) * 0x94D049BB133111EB % KEYS
    return key ^ key >> 31


class Table(Protocol):
    """
    Attributes:
        owners: For each place the number of its endpoint, as they were given to the table.
    """

    @property
    def owners(self) -> Sequence[int]: ...
    def place(self, key: int) -> int: ...


class ConsistentHashing(Generic[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_owners", "_place", "_random", "_usable")

    def __init__(
        self,
        table: Table,
        endpoints: Sequence[E],
        available: Sequence[E],
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            table: Made for `endpoints`.
            endpoints: All.
            available: Those that may be called.
            random: Gives points in [0, 1).
        """
        self._place = table.place
        self._random = random
        allowed = {e for e in available if e.weight}
        self._usable = [e if e in allowed else None for e in endpoints]
        self._owners = table.owners if allowed else ()

    def pick(self, avoid: Collection[E] | None, key: int | None) -> E | None:
        owners, usable = self._owners, self._usable
        if not owners:
            return None
        if key is None:
            key = int(self._random() * KEYS)
        place = start = self._place(key)
        found = None
        while True:
            endpoint = usable[owners[place]]
            if endpoint is not None:
                if avoid is None or endpoint not in avoid:
                    return endpoint
                found = endpoint
            place += 1
            if place == len(owners):
                place = 0
            if place == start:  # all around: nobody but who is to be avoided
                return found

"""
Ring hash: endpoints own points on a circle, and a key belongs to the next point.

Each endpoint is hashed to many points of the circle of all keys (Karger et al., "Consistent Hashing
and Random Trees", 1997; "ketama").  When one goes, only its own keys move, each to whoever
comes next, and when one joins, it takes keys only for itself: movement could not be less.  The
price is unevenness: with p points each, shares differ by about 1/√p.

How many points an endpoint has must not depend on how many endpoints there are, or everybody's
points would change when one comes; so the one with the largest weight has 128 (±9 %), and only above
512 endpoints fewer, lest the ring grows without bound.  With `ring_size` there are at least so
many altogether, as in Envoy; then shares are as even as one likes, and a few keys more move.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final

from .endpoint import E

POINTS: Final = 128
LIMIT: Final = 65_536
"""Points that a ring has by itself: about 0.1 s to compute, 1 MB."""

_PER_DIGEST: Final = 8
_POINTS: Final = Struct(">8Q")  # the 64 bytes of a digest
_OWNER: Final = 32  # bits
_OWNERS: Final = (1 << _OWNER) - 1


class Ring:
    """See `consistent_hashing.Table`."""

    __slots__ = ("_points", "owners")

    def __init__(self, endpoints: Sequence[E], size: int | None = None) -> None:
        """With at least `size` points, if it is given."""
        heaviest = max((e.weight for e in endpoints), default=0)
        total = sum(e.weight for e in endpoints)
        if size is not None and total:
            most = -(-size * heaviest // total)
        else:
            most = max(1, min(POINTS, LIMIT // max(1, len(endpoints))))
        points: list[int] = []  # each with its owner in the lowest bits: numbers sort fast
        for number, endpoint in enumerate(endpoints):
            count = -(-most * endpoint.weight // heaviest) if heaviest else 0
            name = endpoint.name.encode()
            for piece in range(0, count, _PER_DIGEST):
                found = _POINTS.unpack(blake2b(b"%s/%d" % (name, piece)).digest())
                points += [point << _OWNER | number for point in found[: count - piece]]
        points.sort()
        self._points = array("Q", [point >> _OWNER for point in points])
        self.owners = array("I", [point & _OWNERS for point in points])

    def place(self, key: int) -> int:
        place = bisect_right(self._points, key)
        return place if place < len(self._points) else 0

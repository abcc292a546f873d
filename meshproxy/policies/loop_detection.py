"""
Loop detection: a request that keeps coming back here is refused.

A route, an endpoint or a port that points to the wrong place can lead a request round in a circle,
through one proxy or several.  Each turn takes a connection, or a stream, and memory on every proxy
of the circle until time or descriptors run out.

So each proxy writes its name behind those of the proxies before it:

    x-mesh-via: 5c1f0a92, 77b3de01

(a hash of direction and workload: short, the same for all workers of a proxy and after a restart,
and no secret told to an app).  Who finds its own name there `PASSES` times, or more than `HOPS`
names, refuses the request: 508, `loop`.

**Not `Via`**, whose work this is (RFC 9110 section 7.6.3): an app that sees one may answer otherwise.
nginx, by default, compresses nothing for a request with Via.  Envoy sends none for such reasons.

**Not at the first return.**  Services may call one another back in good faith, and a request that is
passed on by an app as it came may bring the field again.  A circle is found a few turns later, which
costs nothing.  Apps are not told: a port of our own that is taken for an app's is known without it
(`upstream/pool.py`).

Anybody may send the field: all that can be had by it is to be refused.

Called from: `Exchange.on_request_head`.
"""

from hashlib import blake2b
from typing import Final

from meshproxy.message import Field, Fields, field, value_of

VIA: Final = b"x-mesh-via"

PASSES: Final = 3
"""How often a request may come by the same place."""

HOPS: Final = 32
"""Proxies on a request's way, over all apps that hand the field on."""

_REMEMBERED: Final = 256
_LONGEST: Final = HOPS * len(b"01234567, ")


class LoopDetection:
    """
    One place that requests come by.

    Attributes:
        name: Of this place, as the others see it.
        first: What a request goes on with that brings nothing.
    """

    __slots__ = ("_made", "first", "name")

    def __init__(self, direction: str, workload: str) -> None:
        place = f"{direction} of {workload}".encode()
        self.name = blake2b(place, digest_size=4).hexdigest().encode()
        self.first = field(VIA, self.name)
        self._made: dict[bytes, Field | None] = {}  # what comes is nearly always the same

    def mark(self, said: Fields) -> Field | None:
        """
        Return the field that a request goes on with, or None for one that goes in a circle.

        Args:
            said: What it brought of fields that only a mesh proxy may set.
        """
        before = None
        for name, value, _line in said:
            if name == VIA:
                before = value if before is None else value_of(said, VIA)
        if before is None:
            return self.first
        made = self._made
        if before in made:
            return made[before]
        if len(made) >= _REMEMBERED:
            made.clear()  # others choose what is remembered, so it is little
        names = before.split(b", ", HOPS)
        circles = len(names) >= HOPS or names.count(self.name) >= PASSES
        mark = None if circles else field(VIA, b"%b, %b" % (before, self.name))
        if len(before) <= _LONGEST:
            made[before] = mark
        return mark

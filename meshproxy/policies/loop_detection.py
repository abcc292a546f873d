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

**Not at the first return.**  The hop to the app carries the field, too, for a port of a proxy may be
taken for an app's by mistake; so an app that copies all fields of a request into the calls that it
makes hands it on, and may call, in good faith, a service that calls it back.  A circle is found a few
turns later, which costs nothing.

Anybody may send the field: all that can be had by it is to be refused.

Called from: `Exchange.on_request_head`.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from meshproxy.message import Field, field, value_of

VIA: Final = b"x-mesh-via"

PASSES: Final = 3
"""How often a request may come by the same place."""

HOPS: Final = 32
"""Proxies on a request's way, over all apps that hand the field on."""


class LoopDetection:
    """
    One place that requests come by.

    Attributes:
        name: Of this place, as the others see it.
    """

    __slots__ = ("_first", "name")

    def __init__(self, direction: str, workload: str) -> None:
        place = f"{direction} of {workload}".encode()
        self.name = blake2b(place, digest_size=4).hexdigest().encode()
        self._first = field(VIA, self.name)

    def mark(self, said: Sequence[Field] | None) -> Field | None:
        """
        Return the field that a request goes on with, or None for one that goes in a circle.

        Args:
            said: What it brought of fields that only a mesh proxy may set.
        """
        before = None if said is None else value_of(list(said), VIA)
        if before is None:
            return self._first
        names = before.split(b", ", HOPS)
        if len(names) >= HOPS or names.count(self.name) >= PASSES:
            return None
        return field(VIA, b"%b, %b" % (before, self.name))

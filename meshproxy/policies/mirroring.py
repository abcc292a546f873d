"""
Mirroring: a copy of real traffic for a version that nobody depends on yet.

Theory of operation
===================

A share of a route's requests is sent to another cluster as well (Gateway API filter RequestMirror):
fire and forget.  The client, and the endpoint that answers it, must not notice.

1) **Nobody waits for a mirror.**  A mirrored request takes what the original takes, when it comes.
   Where its endpoint is slower, up to `HELD_EACH` bytes are held for it (`HELD_ALL` for all mirrors
   of a cluster); beyond that the mirror is given up, never the original slowed down.  Nor is one
   begun while `AT_ONCE` are under way.  What is given up is counted, with the reason.
2) **Nobody hears of it.**  Its answer is read and dropped (no more than `DROPPED` bytes of it); its
   failures are in a metric of its own, and in none of the original's.  It is not retried.
3) It ends.  When its request is complete, the answer has `TIMEOUT` seconds.  When the original
   ends before its request is complete, so does the mirror: half a request is of no use.
4) **It says what it is**: `x-mesh-mirrored: 1`.  The authority is that of the original: Envoy's
   ``-shadow`` at its end makes apps that look at the host refuse what they are to be tested with.
   Sidecars believe the mark of proved peers and hand it to the app, as it may want to write
   no real data.
5) Where there is too much to do, it is the first to be turned away: `x-mesh-criticality: sheddable`.
6) It is made once per request, not per attempt, and of the request as the endpoint sees it.  A
   request that is refused before (rate limit, injected fault, overload) is not mirrored; one
   that switches protocols is a conversation, which cannot be held twice.

Each mirror of a route is drawn for itself: 10 % and 20 % give 2 % of requests with both.

Called from: `Exchange.on_request_head`; the copy itself is `mirror.py`.
Configured by: `contract.MirrorSpec`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from meshproxy.message import MESH_FIELD_PREFIX, RequestHead, field

AT_ONCE: Final = 256
"""Mirrored requests under way, per cluster."""

HELD_EACH: Final = 1 << 20
HELD_ALL: Final = 16 << 20
"""Bytes that wait for mirrors of one cluster to take them."""

TIMEOUT: Final = 15.0
"""Seconds for an answer (Envoy's default for any route)."""

DROPPED: Final = 1 << 20
"""Bytes of an answer that are read for the sake of the connection; then it is reset."""

MARK: Final = field(b"x-mesh-mirrored", b"1")

C = TypeVar("C")


class Mirroring(Generic[C]):
    """To which clusters the requests of one route are mirrored."""

    __slots__ = ("_any", "_mirrors")

    def __init__(self, mirrors: Iterable[tuple[C, float]]) -> None:
        """
        Args:
            mirrors: Clusters, and percents of the requests.
        """
        # Each with its share, and how likely it is that it or one before it is drawn.
        self._mirrors: list[tuple[C, float, float]] = []
        none = 1.0
        for cluster, percent in mirrors:
            share = min(percent / 100, 1.0)
            none *= 1 - share
            self._mirrors.append((cluster, share, 1 - none if none else 1.0))
        self._any = self._mirrors[-1][2] if self._mirrors else 0.0

    def draw(self, random: Callable[[], float]) -> Sequence[C]:
        """
        Return the clusters that get a copy of one request.

        One number tells of most requests that there are none; otherwise it tells the first of
        them, and the others are drawn for themselves.
        """
        first = random()
        if first >= self._any:
            return ()
        drawn: list[C] = []
        for cluster, share, so_far in self._mirrors:
            if (random() < share) if drawn else (first < so_far):
                drawn.append(cluster)
        return drawn


def copy_of(head: RequestHead) -> RequestHead:
    """Return the head of the mirrored request."""
    # Nobody waits for a `100 Continue`: the body comes when the original's comes.  Nor is what was
    # said between proxies true of the copy.
    prefix = MESH_FIELD_PREFIX
    fields = [one for one in head.fields if one[0] != b"expect" and not one[0].startswith(prefix)]
    fields.append(MARK)
    return RequestHead(head.method, head.authority, head.path, fields, head.length, head.scheme)


class Load:
    """
    What the mirrored requests to one cluster take up.

    Attributes:
        active: How many are under way.
        held: Bytes that wait.
    """

    __slots__ = ("active", "held")

    def __init__(self) -> None:
        self.active = 0
        self.held = 0

    def admit(self) -> bool:
        """Count one more, unless they are too many."""
        if self.active >= AT_ONCE:
            return False
        self.active += 1
        return True

    def hold(self, size: int, of_one: int) -> bool:
        """
        Count bytes that have to wait, unless they are too many.

        Args:
            size: How many.
            of_one: How many wait for the same mirror already.
        """
        if of_one + size > HELD_EACH or self.held + size > HELD_ALL:
            return False
        self.held += size
        return True

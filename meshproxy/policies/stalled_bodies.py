"""
Stalled bodies: where there is no room, who does not deliver gives up his place.

Theory of operation
===================

A request counts as work of its service from its head on, and its body may take its time: a phone in
a tunnel is nothing unusual, and as long as there is room it is waited for (a minute without a byte).
But a client that sends heads and no bodies fills every place with a few kilobytes, and then all
others are refused for the sake of requests on which nobody works.  (Envoy and nginx count them, too;
their remedy is to buffer whole requests, which costs each of them memory and time.)

So bodies are looked at where somebody is turned away for want of room, and nowhere else: to requests
that find room, this costs nothing.  A request *stalls* whose body is the client's turn to deliver,
and of which

- nothing has come for `PATIENCE`, or
- so little, on the whole, that it does not come to `RATE` (Apache's `RequestReadTimeout` has the
  same number, and no need for a reason).

Whoever has more than a `SHARE` of all places with such requests (one identity, or one address where
none was proved) is waited for only `HURRIED`: else a client could fill the places anew as fast as
they are cleared.  What stalls is answered 408, `body-timeout`, and who was turned away asks again.

**No victims of mere load.**  A body that comes is never cut, however slowly its end is coming, or an
overloaded upload service would finish nothing.  Nor is one that we have told to wait, a request of
which the answer has begun, or a gRPC call that has sent a message: that may be all it has to say for
now, and the app at work on it.

Called from: `Exchange.begin_attempt`, `Exchange.admit`.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeVar

from meshproxy.message import TUNNEL, RequestHead

PATIENCE: Final = 2.0
"""Seconds of silence."""

HURRIED: Final = 0.5
"""The same, for who has more than his `SHARE`."""

SHARE: Final = 0.25
"""Of the requests under way."""

RATE: Final = 500
"""Bytes a second, after the first seconds."""

PAUSE: Final = 0.1
"""Seconds between two looks at one service: to look at all requests is work, too."""


class Exchange(Protocol):
    """What is looked at of one; see `exchange.Exchange`."""

    started: float
    idle_since: float
    moved: bool
    protocol: str
    status: int
    request_ended: bool
    request_paused: bool
    body: list[bytes] | None
    body_size: int

    @property
    def head(self) -> RequestHead: ...
    @property
    def caller(self) -> Any: ...
    @property
    def downstream(self) -> Any: ...


E = TypeVar("E", bound=Exchange)


class StalledBodies:
    """Looks for them among the requests to one service."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def look(self, now: float) -> bool:
        """Say whether it is time for another look, and count it."""
        if now < self._next:
            return False
        self._next = now + PAUSE
        return True

    @staticmethod
    def among(exchanges: Iterable[E], now: float) -> list[E]:
        """Return those that stall; of the others, note that they have moved."""
        waiting: list[tuple[E, str]] = []
        holders: Counter[str] = Counter()
        places = 0
        for exchange in exchanges:
            places += 1
            if exchange.moved:
                exchange.moved = False
                exchange.idle_since = now
            if _awaits_client(exchange):
                holder = exchange.caller.source or exchange.downstream.address
                holders[holder] += 1
                waiting.append((exchange, holder))
        crowd = places * SHARE
        return [
            exchange
            for exchange, holder in waiting
            if _stalls(exchange, HURRIED if holders[holder] > crowd else PATIENCE, now)
        ]


def _awaits_client(exchange: Exchange) -> bool:
    """Say whether the client is to blame if nothing goes on."""
    if exchange.request_ended or exchange.request_paused or exchange.status:
        return False
    length = exchange.head.length
    if length is None or length == TUNNEL:
        return False
    is_stream = exchange.protocol == "grpc" and length < 0
    return not (is_stream and exchange.body_size)


def _stalls(exchange: Exchange, patience: float, now: float) -> bool:
    if now - exchange.idle_since >= patience:
        return True
    # What is no longer kept was more than a little.
    expected = (now - exchange.started - patience) * RATE
    return exchange.body is not None and exchange.body_size < expected

"""
One line of the matrix: a fault, a policy, and what must come of it.

Expectations are written once for all protocols where they are the same thing in other words: a
refusal's code stands for its HTTP status and for its gRPC status.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from meshproxy.refusal import REFUSALS

Lane = Literal["http1", "http2", "grpc"]
LANES: tuple[Lane, ...] = get_args(Lane)
Way = Literal["alone", "pair"]
"""Through one sidecar, or two (`mesh.py`)."""
WAYS: tuple[Way, ...] = get_args(Way)

Second = Literal["nobody", "twin", "ill"]
"""Another endpoint of a service: where nobody listens, or one of the server's (`fault_server/control.py`)."""

NOBODY = "nobody"
"""A cluster where nobody listens."""

TITLES: Mapping[Lane, str] = {"http1": "HTTP/1.1", "http2": "HTTP/2", "grpc": "gRPC"}


@dataclass(frozen=True)
class Policy:
    """
    Attributes:
        text: What is configured, for the document.
        cluster, route: What differs from the defaults in `ClusterSpec` and `RouteSpec` of the client's side.
        inbound: The same in the `ClusterSpec` of the sidecar beside the app; such a policy is tried
            only where there is one.
        timed: Something is measured against a limit: then the machine has nothing else to do, and
            connections stand already.
        peer: The server stands where another sidecar should be, and mutual TLS is wanted of it.
    """

    name: str
    text: str
    cluster: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, Any] = field(default_factory=dict)
    inbound: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = False
    peer: bool = False

    @property
    def ways(self) -> tuple[Way, ...]:
        """Through how many sidecars it is tried."""
        if self.peer:
            return ("alone",)
        return ("pair",) if self.inbound else WAYS


@dataclass(frozen=True)
class Row:
    """
    Attributes:
        what: What goes wrong, for the document.
        says: The words of `x-fault`.
        sees: What the client sees: `200`, a refusal's code, `torn` (an answer that visibly lacks its
            end), `waits` (nothing, until it gives up); several are joined by ` or `.
        lanes: Where that is another, or None where there is no such fault.
        executed: How often the app did the work.
        flag: Label of `mesh_requests_total`; None for that of the refusal that is seen.
        counts: What the cluster's other counters count, as `retries connect-failed` for
            `mesh_retries_total` with this label; all others must be 0.  None where that is a matter
            of luck.
        mode: Of the whole server (`fault_server/control.py`).
        before: The words of requests that go before, on the same connection, each of which executes
            once and is counted with `-`.
        beside: The words of one that is under way meanwhile, on another connection, until its client
            gives up.
        second: The service has this other endpoint, too.
        elsewhere: How many of all that is executed that endpoint may have done; empty for any.
        awaits: A state that the second endpoint has by then, before anything is asked of the service.
        keeps: The client says again what the answers before have told it: in `cookie`, or in a field
            of this name.
        ways: Where it can be seen.
        abandoned: How many of the attempts that stalled were given up, in the end.
        body: Bytes of the request's body.
        fields: More fields of the request.
    """

    what: str
    says: str
    sees: str
    lanes: Mapping[Lane, str | None] = field(default_factory=dict)
    executed: int | Mapping[Lane, int] = 1
    flag: str | Mapping[Lane, str] | None = None
    counts: Mapping[str, int] | None = field(default_factory=dict)
    method: Literal["GET", "POST"] = "POST"
    mode: str = "serve"
    before: tuple[str, ...] = ()
    beside: str | None = None
    second: Second | None = None
    elsewhere: Collection[int] = ()
    awaits: str = ""
    keeps: str = ""
    ways: tuple[Way, ...] = WAYS
    abandoned: int = 0
    body: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    def expected(self, lane: Lane, way: Way = "alone") -> tuple[str, ...]:
        """Return what may be seen there, in that protocol's words; nothing where it cannot be."""
        if lane == "grpc" and self.method == "GET":
            return ()  # a call is a POST
        sees = self.lanes.get(lane, self.sees)
        if sees is None:
            return ()
        if "torn" in sees and way == "pair":
            # The sidecar beside the app may tear its stream before the answer's head has left it.
            sees += " or upstream-reset"
        return tuple(_in_words(one, lane) for one in sees.split(" or "))

    def executions(self, lane: Lane) -> int:
        return self.executed if isinstance(self.executed, int) else self.executed[lane]

    def flags(self, lane: Lane) -> tuple[str, ...]:
        """Return with which flag it may be counted."""
        if self.flag is not None:
            return (self.flag if isinstance(self.flag, str) else self.flag[lane],)
        sees = self.lanes.get(lane) or self.sees
        return tuple(_flag(one) for one in sees.split(" or "))


def _in_words(sees: str, lane: Lane) -> str:
    refusal = REFUSALS.get(sees)
    if refusal is not None:
        return f"{refusal.grpc_status if lane == 'grpc' else refusal.status} {sees}"
    return "0" if (sees, lane) == ("200", "grpc") else sees


def _flag(sees: str) -> str:
    if sees == "waits":
        return "DC"
    return REFUSALS[sees].flag if sees in REFUSALS else "-"

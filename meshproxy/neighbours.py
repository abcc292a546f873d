"""
The neighbours of an exchange, as far as it knows them.

    Downstream ──▶ Exchange ──▶ Upstream       what carries a request, and its answer back
                   Caller                      who asks, and where that may lead
                   Cluster, Endpoint           who may be asked
                   Surroundings                clock, chance, and who counts

Those on which bytes run are protocols: connections and streams of many kinds are such by their
methods, and descend from what they have in common among each other.  The others are classes to
descend from: compiled, reading an attribute of a class is one step, and of a protocol a search by
name, and each request reads more than a hundred.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from meshproxy.message import Field, Fields, RequestHead, ResponseHead
from meshproxy.native import mypyc_attr
from meshproxy.policies import mirroring
from meshproxy.policies.deadline import Timeouts
from meshproxy.policies.hedging import Latencies
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.endpoint import Endpoint as Balanced
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.policies.load_shedding import LoadShedding
from meshproxy.policies.loop_detection import LoopDetection
from meshproxy.policies.propagation import Propagation
from meshproxy.policies.replay import ReplayMemory
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.policies.stalled_bodies import StalledBodies
from meshproxy.routing.table import VirtualHost

if TYPE_CHECKING:
    from meshproxy.exchange import Exchange


class DownstreamTunnel(Protocol):
    """Where an answer goes that has no head any more."""

    blocked: bool

    def send_data(self, data: bytes, last: bool = False) -> None: ...
    def send_end(self, trailers: Fields | None) -> None: ...
    def reset(self) -> None: ...
    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...


class Downstream(DownstreamTunnel, Protocol):
    """
    Where the answer goes.

    Attributes:
        protocol: `http` or `http2`.
        address: The client's IP address.
    """

    @property
    def protocol(self) -> str: ...
    @property
    def address(self) -> str: ...

    def send_informational(self, head: ResponseHead) -> None: ...
    def send_head(self, head: ResponseHead) -> None: ...
    def switch(self, head: ResponseHead) -> DownstreamTunnel:
        """Send the head that opens a tunnel, and return what carries the tunnel's bytes."""

    def start_over(self, head: ResponseHead) -> bool:
        """
        Send the head, and read on as if the client had just connected.

        Return False where that is impossible, with nothing sent.
        """


class UpstreamTunnel(Protocol):
    """An attempt whose head has gone out."""

    blocked: bool

    def send_data(self, data: bytes, last: bool = False) -> None: ...
    def send_end(self, trailers: Fields | None) -> None: ...
    def reset(self) -> None: ...
    def pause_response(self) -> None: ...
    def resume_response(self) -> None: ...


class Upstream(UpstreamTunnel, Protocol):
    """One attempt at one endpoint."""

    def send_head(self, head: RequestHead) -> None: ...
    def discard(self, length: int | None) -> None:
        """The answer, whose head has come and says this length, is not wanted: the connection is."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint(Balanced):
    """
    One server.

    Attributes:
        active: Attempts under way, for the load balancer.
        name: ``address:port``.
    """

    __slots__ = ("version",)

    version: str

    def acquire(self, exchange: Any) -> None:
        """Answer with `on_upstream_ready` or `on_upstream_failed`, now or later."""
        raise NotImplementedError

    def acquire_apart(self, exchange: Any) -> None:
        """As `acquire`, for a large body: it need not share a connection with others."""
        raise NotImplementedError

    def forget(self, exchange: Any) -> None:
        """The exchange no longer waits."""
        raise NotImplementedError

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        """
        Learn how an attempt went; told once, at its end.

        Args:
            status: Of its answer; 0 without one.
            grpc_status: Of its answer; None where it is not gRPC.
            code: Why there is no answer, or not all of it, as in `refusal.py`; empty where there is.
                After `downstream-closed` nothing is known: nobody waited any longer.
            seconds: Until the head of its answer; 0.0 without one.
            began: When the endpoint was picked.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Cluster:
    """
    A named set of equal servers.

    Attributes:
        available: Those that may be called.
        pick: Chooses one of them, if there is any: `Balancer.pick`.
        shedding: How many requests the app is given at once; None for all.
        mirrors: What copies of other clusters' requests take up.
        stalled: Finds requests that hold places and do not come.
        sticky: It has a `hash_key` or a `session`.
        hash_key: What requests are hashed by; None where none is used.
        session: Of routes that have none of their own.
        requests: Attempts under way, and how many there may be.
        retries: Exchanges under way that make more than one attempt, and how many there may be.
        mtls: Who answers has proved to be a mesh proxy.
        retry: Of routes that say nothing.
        budget: For retries, whichever route they are made for.
        latencies: Of requests that may be hedged.
        timeouts: Of requests by routes that say nothing of their own.
    """

    __slots__ = (
        "available", "budget", "hash_key", "latencies", "mirrors", "mtls", "pick", "requests",
        "retries", "retry", "service", "session", "shedding", "stalled", "sticky", "timeouts",
    )  # fmt: skip

    service: str
    available: tuple[Endpoint, ...]
    pick: Callable[[Any, int | None], Endpoint | None]
    shedding: LoadShedding | None
    mirrors: mirroring.Load
    stalled: StalledBodies
    sticky: bool
    hash_key: HashKey | None
    session: Session | None
    requests: Limit
    retries: Limit
    mtls: bool
    retry: Retry
    budget: RetryBudget
    latencies: Latencies
    timeouts: Timeouts

    def resume(self, wanted: bytes, tokens: Tokens) -> Endpoint | None:
        """Return the endpoint that a token means, if it may be called."""
        raise NotImplementedError

    def admits(self, limit: Limit) -> bool:
        """Say whether an attempt may be made although its limit is full or shut."""
        raise NotImplementedError

    def refusal(self, limit: Limit) -> tuple[str, str, Sequence[Field]]:
        """Return why nobody can be picked: a code, its detail, and what tells the client more."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Series:
    """Counts one kind of request."""

    __slots__ = ()

    def record(self, status: int, flag: str, seconds: float) -> None:
        raise NotImplementedError


class Timers(Protocol):
    """Calls `on_due` of what was added, once its `due` has passed."""

    def add(self, item: Any) -> set[Any]: ...  # exchanges and opaque connections share it
    def drop(self, slot: set[Any], item: Any) -> None: ...


class Authorities(Protocol):
    """Finds the virtual host that serves an authority."""

    def find(self, authority: bytes) -> VirtualHost[Cluster] | None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Surroundings:
    """
    What an exchange may ask of the process around it; a fake one in tests.

    Attributes:
        exchanges: Those that are under way; a draining proxy waits until there are none.
        timers: One for all deadlines.
        propagation: Which outbound calls are made for which inbound requests.
        replay: What bodies take up that are kept for another attempt.
        tunnels: How many of them have switched protocols.
        tokens: Of persistent sessions; None where there are none.
    """

    __slots__ = (
        "exchanges", "now", "propagation", "random", "replay", "timers", "tokens", "tunnels",
    )  # fmt: skip

    exchanges: "set[Exchange]"
    tunnels: int
    tokens: Tokens | None
    propagation: "Propagation[Exchange]"
    replay: ReplayMemory
    now: Callable[[], float]
    random: Callable[[], float]
    timers: Timers

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def retried(self, service: str, reason: str) -> None:
        raise NotImplementedError

    def retry_skipped(self, service: str, reason: str) -> None:
        raise NotImplementedError

    def hedged(self, service: str) -> None:
        raise NotImplementedError

    def hedge_won(self, service: str) -> None:
        raise NotImplementedError

    def refused(self, direction: str, code: str) -> None:
        raise NotImplementedError

    def cancelled(self, service: str) -> None:
        raise NotImplementedError

    def rate_limited(self, direction: str, limit: str, why: str) -> None:
        raise NotImplementedError

    def fault_injected(self, direction: str, fault: str, kind: str) -> None:
        raise NotImplementedError

    def shed(self, service: str, criticality: str) -> None:
        raise NotImplementedError

    def mirrored(self, service: str, outcome: str) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Guard:
    """What the policies of security make of a caller's requests."""

    __slots__ = ()

    def stop(
        self, head: RequestHead, downstream: Downstream
    ) -> tuple[str, str, Sequence[Field]] | None:
        """Return code, number of the denial and fields, or None where the request may pass."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Caller:
    """
    Who sends requests on a connection, and where they may go.

    Attributes:
        direction: `inbound` or `outbound`.
        hop: Name of this proxy's role in a refusal: ``outbound of default/storefront``.
        virtual_host: Serves every request, or None to choose by authority.
        authorities: All virtual hosts, by authority.
        series: What counts requests, by route, service, version and protocol; asked for what it
            does not have yet, it makes that.
        identity_field: Tells the app which peer mTLS proved; None where nobody was proved.
        workload: ``namespace/name`` of the app beside this proxy.
        source: Identity of who calls; empty where nobody was proved.
        loops: Finds requests that have come by here too often.
    """

    __slots__ = (
        "authorities", "direction", "guard", "hop", "identity_field", "loops", "series", "source",
        "surroundings", "virtual_host", "workload",
    )  # fmt: skip

    direction: str
    hop: str
    loops: LoopDetection
    workload: str
    identity_field: Field | None
    guard: Guard | None
    source: str
    surroundings: Surroundings
    series: Mapping[tuple[str, str, str, str], Series]
    virtual_host: VirtualHost[Cluster] | None
    authorities: Authorities

    def leads_to(self, authority: bytes) -> bool:
        """Say whether a CONNECT for this authority leads to opaque connections."""
        raise NotImplementedError

    def grpc_ended(self, route: str, service: str, status: str) -> None:
        raise NotImplementedError

"""
One opaque connection: the story of everything that is not HTTP, in one file.

Read the methods from top to bottom: they stand in the order in which a connection meets them.
`exchange.py` tells the same of a request; this story is shorter, because nobody looks inside.

    downstream ──on_downstream_*──▶ Relay ──send_*──▶ upstream
    downstream ◀──send_*─────────── Relay ◀─on_upstream_*── upstream

Both sides are streams of bytes with two halves: `data* → end` in each direction, independent of
the other, and `reset`, which ends both at once.  A side is a socket (`downstream/tcp.py`,
`upstream/tcp.py`) or a CONNECT stream between two sidecars (`downstream/tunnel.py`,
`upstream/tunnel.py`); neither knows what the other is.  So a connection through two sidecars is
two relays with a tunnel between them.

**Nothing is lost in silence.**  What cannot be delivered ends in a reset, never in an end: the end
of a stream of bytes means "this was all", and an app may act on it.

Nothing in this file waits.  "Later" is always another method, named `on_…`.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, Protocol

from meshproxy.message import Field
from meshproxy.policies.deadline import LOOKS, Timeouts
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.another import another
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.retry import UNPROCESSED, Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.refusal import refusal
from meshproxy.routing.split import Backend
from meshproxy.routing.tcp import TcpRoute, TcpRule

EARLY_LIMIT: Final = 64 * 1024
"""Bytes kept while it is not known whether the endpoint is there, to say them to another one."""

Bytes = bytes | memoryview
"""A view is valid during the call that it is an argument of: who keeps it makes a copy."""


# The neighbours, as far as this file knows them ---------------------------------------------------


class Side(Protocol):
    """
    One of the two streams of bytes.

    Attributes:
        blocked: It does not leave as fast as it comes: please pause.
    """

    blocked: bool

    def send_data(self, data: Bytes) -> None: ...
    def send_end(self) -> None:
        """Nothing more will be sent; what the other end says is still welcome."""

    def reset(self) -> None:
        """End both halves, in a way that cannot be taken for an end."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Upstream(Side, Protocol):
    """Where the connection goes."""

    def withdraw(self) -> None:
        """End both halves quietly: nothing was said, and nothing will be missed."""


class Downstream(Side, Protocol):
    """Where the connection comes from."""

    @property
    def address(self) -> str:
        """The client's IP address."""

    def established(self) -> None:
        """The endpoint is there."""

    def refuse(self, code: str) -> None:
        """There will be no connection, and why; a reset, to who cannot be told."""


class Endpoint(Protocol):
    """
    One server.

    Attributes:
        active: Attempts under way, for the load balancer.
    """

    active: int

    def connect(self, relay: "Relay") -> None:
        """Answer with `on_upstream_ready` or `on_upstream_failed`, now or later."""

    def disconnect(self, relay: "Relay") -> None:
        """The relay no longer waits."""

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        """
        Learn how an attempt went; told once, as soon as that is known.

        Args:
            status: 0, for nobody looks inside.
            grpc_status: None.
            code: Why there is no connection; empty where there is.  After `downstream-closed`
                nothing is known: nobody waited any longer.
            seconds: Until the connection stood; 0.0 where it does not.
            began: When the endpoint was picked.
        """


class Cluster(Protocol):
    """
    A named set of equal servers.

    Attributes:
        connections: Those that stand or are dialled, and how many there may be.
        retry: How often one is tried.
        budget: For retries.
        timeouts: Of these, `tunnel_idle` and `duration` are about opaque connections.
    """

    service: str
    connections: Limit
    retry: Retry
    budget: RetryBudget
    timeouts: Timeouts

    @property
    def hash_key(self) -> HashKey | None: ...
    def pick(self, avoid: tuple[Endpoint, ...] | None, key: int | None) -> Endpoint | None: ...
    def admits(self, limit: Limit) -> bool:
        """Say whether an attempt may be made although its limit is full or shut."""

    def refusal(self, limit: Limit) -> tuple[str, str, Sequence[Field]]:
        """Return why nobody can be picked; the first is a code of `refusal.py`."""


class Series(Protocol):
    """
    Counts the connections of one kind.

    Attributes:
        opened: Connections that began.
        received: Bytes from downstream.
        sent: Bytes to downstream.
    """

    opened: int
    received: int
    sent: int

    def ended(self, flag: str) -> None: ...


class Timers(Protocol):
    """Calls `on_due` of what was added, once its `due` has passed."""

    def add(self, item: Any) -> set[Any]: ...  # exchanges and opaque connections share it
    def drop(self, slot: set[Any], item: Any) -> None: ...


class Surroundings(Protocol):
    """What a relay may ask of the process around it; a fake one in tests."""

    now: Callable[[], float]
    random: Callable[[], float]

    @property
    def timers(self) -> Timers: ...
    def later(self, seconds: float, callback: Callable[[], None]) -> None: ...
    def retried(self, service: str, reason: str) -> None: ...
    def retry_skipped(self, service: str, reason: str) -> None: ...
    def refused(self, direction: str, code: str) -> None: ...


class Guard(Protocol):
    """What the policies of security make of a caller's connections."""

    def stop_connection(self, downstream: Downstream) -> bool:
        """Say whether there may be none."""


class Caller(Protocol):
    """
    Who makes the connection, and where it may go.

    Attributes:
        direction: `inbound` or `outbound`.
        source: Identity of who calls; empty where nobody was proved.
        tcp_route: None where nothing but HTTP is known.
        relays: Connections that are open, for `forbid`.
    """

    direction: str
    source: str
    relays: "set[Relay]"

    @property
    def surroundings(self) -> Surroundings: ...
    @property
    def tcp_route(self) -> TcpRoute[Cluster] | None: ...
    @property
    def guard(self) -> Guard | None: ...
    def connections(self, route: str, service: str) -> Series: ...


class Relay:
    """
    One opaque connection, over all attempts to reach an endpoint.

    Attributes:
        due: When the timer comes, where there is a limit of time.
        moved: A byte has passed since somebody last looked.
    """

    __slots__ = (
        "attempts",
        "began",
        "caller",
        "cluster",
        "connected",
        "done",
        "downstream",
        "downstream_ended",
        "downstream_paused",
        "due",
        "early",
        "early_size",
        "endpoint",
        "idle_since",
        "key",
        "moved",
        "rule",
        "series",
        "since",
        "timer",
        "tried",
        "upstream",
        "upstream_ended",
    )

    began: float
    cluster: Cluster
    due: float
    idle_since: float
    since: float

    def __init__(self, downstream: Downstream, caller: Caller) -> None:
        # For the whole connection
        self.downstream = downstream
        self.caller = caller
        self.done = False
        self.moved = False
        self.timer: set[Relay] | None = None  # our slot in the wheel
        self.rule: TcpRule[Cluster] | None = None
        self.series: Series | None = None  # None: no route, so nothing to count it under
        # What the client has said before anybody listened
        self.early: list[bytes] | None = []  # None: said for good, or too much to be kept
        self.early_size = 0
        self.downstream_ended = False
        self.downstream_paused = False
        # The current attempt
        self.attempts = 0
        self.key: int | None = None  # of what the balancer shall keep together
        self.endpoint: Endpoint | None = None
        self.tried: tuple[Endpoint, ...] | None = None  # see `another`
        self.upstream: Upstream | None = None
        self.connected = False
        self.upstream_ended = False

    # 1. A connection has been accepted: where does it go? -----------------------------------------

    def begin(self, server_name: str | None = None) -> None:
        """Choose by the name in its ClientHello, if it has one, then by weight."""
        caller = self.caller
        if caller.guard is not None and caller.guard.stop_connection(self.downstream):
            return self.refuse("access-denied")
        caller.relays.add(self)
        route = caller.tcp_route
        self.rule = rule = None if route is None else route.find(server_name)
        if rule is None:
            return self.refuse("no-route")
        split = rule.split
        backend: Backend[Cluster] | None = None
        if split is not None:
            backend = split.only or split.choose(caller.surroundings.random())
        if backend is None or backend.cluster is None:
            return self.refuse("unresolved-backend")
        self.cluster = cluster = backend.cluster
        cluster.budget.deposit(caller.surroundings.now())
        if cluster.hash_key is not None:
            self.key = cluster.hash_key.of_connection(caller.source, self.downstream)
        self._count(rule.name, cluster.service)
        return self.begin_attempt()

    def _count(self, route: str, service: str) -> Series:
        self.series = series = self.caller.connections(route, service)
        series.opened += 1
        series.received += self.early_size
        return series

    # 2. Choose an endpoint and reach it -----------------------------------------------------------

    def begin_attempt(self) -> None:
        if self.done:
            return None
        self.attempts += 1
        cluster = self.cluster
        connections = cluster.connections
        endpoint = None
        if connections.count < connections.ceiling or cluster.admits(connections):
            if self.tried is None:
                endpoint = cluster.pick(None, self.key)
            else:
                endpoint, self.tried = another(cluster.pick, self.tried, self.key)
        if endpoint is None:
            return self.refuse(cluster.refusal(connections)[0])
        connections.count += 1
        endpoint.active += 1
        self.endpoint = endpoint
        self.began = self.caller.surroundings.now()
        return endpoint.connect(self)

    def on_upstream_ready(self, upstream: Upstream) -> None:
        """There is a way: say what the client has said, whether or not the endpoint is there."""
        self.upstream = upstream
        if self.early:
            for data in self.early:
                upstream.send_data(data)
            if self.early_size > EARLY_LIMIT:
                self.early = None
        if self.downstream_ended:
            upstream.send_end()
        if self.downstream.blocked:
            upstream.pause()
        if upstream.blocked:
            self.on_upstream_blocked()
        else:
            self._resume_downstream()

    def on_upstream_connected(self) -> None:
        """The endpoint is there: whatever happens from now on happens to the client, too."""
        self.connected = True
        self.early = None
        timeouts = self.cluster.timeouts
        if timeouts.tunnel_idle != inf or timeouts.duration != inf:
            self.since = self.idle_since = self.caller.surroundings.now()
            self._arm(self.since)
        if self.endpoint is not None:
            seconds = self.caller.surroundings.now() - self.began
            self.endpoint.judge(0, None, "", seconds, self.began)
        self.downstream.established()

    def on_upstream_failed(self, code: str) -> None:
        """The endpoint was not reached, and has heard nothing."""
        if self.done:
            return
        self.upstream = None
        self._end_attempt(code)
        self._retry_or_refuse(code, heard=False)

    # 3. Bytes both ways ---------------------------------------------------------------------------

    def on_downstream_data(self, data: Bytes) -> None:
        if self.done:
            return
        self.moved = True
        series = self.series
        if series is not None:
            series.received += len(data)
        upstream = self.upstream
        early = self.early
        if early is not None:
            self.early_size += len(data)
            data = bytes(data)
            early.append(data)
            if self.early_size > EARLY_LIMIT:
                if upstream is not None:
                    self.early = None
                elif not self.downstream_paused:
                    self.downstream_paused = True
                    self.downstream.pause()
        if upstream is not None:
            upstream.send_data(data)

    def on_upstream_data(self, data: Bytes) -> None:
        self.moved = True
        if self.series is not None:
            self.series.sent += len(data)
        self.downstream.send_data(data)

    # 4. One side is slower than the other ---------------------------------------------------------

    def on_downstream_blocked(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def on_downstream_writable(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()

    def on_upstream_blocked(self) -> None:
        if not self.downstream_paused:
            self.downstream_paused = True
            self.downstream.pause()

    def on_upstream_writable(self) -> None:
        self._resume_downstream()

    def _resume_downstream(self) -> None:
        if self.downstream_paused:
            self.downstream_paused = False
            self.downstream.resume()

    # 5. One half ends, the other goes on ----------------------------------------------------------

    def on_downstream_end(self) -> None:
        """The client has said all; the answer may still come."""
        if self.done:
            return
        self.downstream_ended = True
        if self.upstream is not None:
            self.upstream.send_end()
            if self.upstream_ended:
                self._finish("-")

    def on_upstream_end(self) -> None:
        """The endpoint has said all; the client may go on."""
        if self.done:
            return
        self.upstream_ended = True
        self.downstream.send_end()
        if self.downstream_ended:
            self._finish("-")

    # 6. What can go wrong -------------------------------------------------------------------------

    def on_upstream_reset(self, code: str) -> None:
        """
        The way to the endpoint has gone.

        Args:
            code: Why, as in `refusal.py`.
        """
        if self.done:
            return
        self.upstream = None
        self._end_attempt(code)
        if self.connected:
            self._finish(refusal(code).flag)
            self.downstream.reset()
            return
        # What was sent ahead may have arrived; where nothing was, nothing can be repeated.
        heard = refusal(code).processed and bool(self.early_size or self.downstream_ended)
        self._retry_or_refuse(code, heard=heard)

    def on_downstream_reset(self) -> None:
        """The client has gone."""
        if self.done:
            return
        upstream, self.upstream = self.upstream, None
        endpoint = self.endpoint
        if upstream is not None:
            upstream.reset()
        elif endpoint is not None:
            endpoint.disconnect(self)
        self._finish(refusal("downstream-closed").flag)

    def _arm(self, now: float) -> None:
        """Be told when the first limit of time could be broken, or must be looked at."""
        limits = self.cluster.timeouts
        idle = limits.tunnel_idle
        self.due = min(self.since + limits.duration, self.idle_since + idle, now + idle / LOOKS)
        self.timer = self.caller.surroundings.timers.add(self)

    def on_due(self) -> None:
        """
        See whether a limit has been broken; none has one unless somebody wants it.

        Most opaque connections are silent for long, and with reason: pools of databases, shells.
        """
        self.timer = None
        now, limits = self.caller.surroundings.now(), self.cluster.timeouts
        if self.moved:
            self.moved = False
            self.idle_since = now
        if now >= self.since + limits.duration:
            self._break_off("duration-exceeded")
        elif now >= self.idle_since + limits.tunnel_idle:
            self._break_off("stream-idle")
        else:
            self._arm(now)

    def forbid(self) -> None:
        """A policy has come that does not allow this connection any more."""
        self._end("access-denied")

    def on_memory_short(self) -> None:
        """The process is short of memory, and nothing of this has moved for longer than of others."""
        self._end("memory-pressure")

    def _end(self, code: str) -> None:
        if self.done:
            return
        if self.upstream is None and self.endpoint is not None:
            self.endpoint.disconnect(self)
        self._break_off(code)

    def _break_off(self, code: str) -> None:
        """Reset both sides: neither may take this for an end."""
        upstream, self.upstream = self.upstream, None
        self.caller.surroundings.refused(self.caller.direction, code)
        self._finish(refusal(code).flag)
        if upstream is not None:
            upstream.reset()
        self.downstream.reset()

    def withdraw(self) -> None:
        """The connection is not needed after all; nothing was said on it."""
        if self.done:
            return
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.withdraw()
        elif self.endpoint is not None:
            self.endpoint.disconnect(self)
        self._finish("-")

    def _retry_or_refuse(self, code: str, *, heard: bool) -> None:
        cluster, surroundings = self.cluster, self.caller.surroundings
        retry = cluster.retry
        hopeless = retry.of_failure(code, sent=False, reused=False) != UNPROCESSED
        if heard or hopeless or self.attempts >= retry.attempts:
            return self.refuse(code)
        why_not = ""
        if self.early is None:
            why_not = "body-too-large"
        elif not cluster.budget.withdraw(surroundings.now()):
            why_not = "budget"
        if why_not:
            surroundings.retry_skipped(cluster.service, why_not)
            return self.refuse(code)
        surroundings.retried(cluster.service, code)
        wait = retry.wait(UNPROCESSED, self.attempts, surroundings.random)
        return surroundings.later(wait, self.begin_attempt)

    def refuse(self, code: str) -> None:
        """There is no connection to be had."""
        self.caller.surroundings.refused(self.caller.direction, code)
        if self.series is None:
            self._count("-" if self.rule is None else self.rule.name, "-")
        self._finish(refusal(code).flag)
        self.downstream.refuse(code)

    # 7. The end: give back, count -----------------------------------------------------------------

    def _end_attempt(self, code: str) -> None:
        """The attempt is over; `code` says why, where the endpoint was not reached."""
        endpoint = self.endpoint
        if endpoint is not None:
            endpoint.active -= 1
            self.cluster.connections.count -= 1
            self.tried = (*(self.tried or ()), endpoint)
            self.endpoint = None
            if not self.connected:
                endpoint.judge(0, None, code, 0.0, self.began)

    def _finish(self, flag: str) -> None:
        self.done = True
        self.early = None
        self.caller.relays.discard(self)
        self._end_attempt("downstream-closed")
        if self.downstream_paused:
            self._resume_downstream()
        if self.timer is not None:
            self.caller.surroundings.timers.drop(self.timer, self)
            self.timer = None
        if self.series is not None:
            self.series.ended(flag)

"""
Active health checks of one endpoint: asked in intervals, on the connections that requests use.

A check is one more exchange for the endpoint's pool (or one more relay), which nobody has sent.  So it
takes the way of traffic, with the same certificate and the same expectation of who answers: what it
finds to work works for requests, too.  `tcp` to a mesh peer opens a tunnel through the peer's sidecar to
the app, and closes it again.

Nothing here is a task.  A timer begins a check, the answer or another timer ends it, and `close` ends
everything: no check outlives its endpoint.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from meshproxy.codec import grpc
from meshproxy.contract.policies import HealthCheckSpec
from meshproxy.contract.resources import ClusterSpec
from meshproxy.message import Fields, RequestHead, ResponseHead, field
from meshproxy.neighbours import Upstream
from meshproxy.policies import health
from meshproxy.policies.health import Health
from meshproxy.policies.outcome import NOTHING, SHED, outcome, shed
from meshproxy.relay import Upstream as Way
from meshproxy.telemetry.metrics import Metrics

from .http1 import Exchange
from .tcp import Relay

log = logging.getLogger("meshproxy.upstream")

UNTAKEN: Final = "no-route"
"""What a peer says to an opaque connection for a port that it knows to speak HTTP."""

FIRST_WITHIN = 1.0
"""Seconds within which a new endpoint is checked."""

_AGENT = field(b"User-Agent", b"meshproxy-health-check")
_GRPC_TYPE = field(b"Content-Type", grpc.CONTENT_TYPE)
_TE = field(b"TE", b"trailers")


class Environment(Protocol):
    """What checking needs of the process."""

    loop: asyncio.AbstractEventLoop
    metrics: Metrics
    random: Callable[[], float]


class Pool(Protocol):
    """Where connections for requests come from."""

    def acquire(self, exchange: Exchange) -> None: ...
    def forget(self, exchange: Exchange) -> None: ...


class Endpoint(Protocol):
    """
    What is checked.

    Attributes:
        cluster: With `mtls`, who answers has proved to be a mesh proxy.
        healthy: What we find.
        name: ``address:port``.
    """

    cluster: ClusterSpec
    healthy: bool
    name: str

    @property
    def pool(self) -> Pool: ...
    def connect(self, relay: Relay) -> None: ...
    def disconnect(self, relay: Relay) -> None: ...


class HealthCheck:
    """Checks one endpoint until it is closed."""

    __slots__ = (
        "_asked",
        "_changed",
        "_cluster",
        "_endpoint",
        "_environment",
        "_health",
        "_timer",
        "spec",
    )

    def __init__(
        self,
        spec: HealthCheckSpec,
        cluster: str,
        endpoint: Endpoint,
        environment: Environment,
        changed: Callable[[], None],
    ) -> None:
        """Begin; `changed` is called after `endpoint.healthy` has."""
        self.spec = spec
        self._cluster = cluster
        self._endpoint = endpoint
        self._environment = environment
        self._changed = changed
        self._health = Health(spec, healthy=endpoint.healthy)
        self._asked: _Question | None = None
        wait = environment.random() * min(FIRST_WITHIN, spec.interval / 1000)
        self._timer = environment.loop.call_later(wait, self._ask)

    def close(self) -> None:
        """Ask nothing more."""
        self._timer.cancel()
        if self._asked is not None:
            self._asked.give_up()
            self._asked = None

    # One check ------------------------------------------------------------------------------------

    def _ask(self, *, again: bool = False) -> None:
        """Ask; `again` because the connection of the first try had been closed already."""
        kind = _Connect if self.spec.type == "tcp" else _Call if self.spec.type == "grpc" else _Get
        if not again:
            timeout = self.spec.timeout / 1000
            self._timer = self._environment.loop.call_later(timeout, self._on_timeout)
        self._asked = kind(self.spec, self._endpoint, self)
        self._asked.begin()

    def _on_timeout(self) -> None:
        asked = self._asked
        assert asked is not None
        asked.give_up()
        self.on_answer(asked, why="timeout", good=False)

    def on_closed_before(self, question: "_Question") -> None:
        """The connection was on its way out when it was used: that says nothing."""
        if question is self._asked:
            self._asked = None
            self._ask(again=True)

    def on_no_answer(self, question: "_Question", code: str) -> None:
        """There is no answer, and a code of `refusal.py` says why."""
        if code == UNTAKEN and self.spec.type == "tcp":
            # A port of HTTP: its sidecar takes no opaque connections, past all policies, but is there.
            self.on_answer(question, why="reached its sidecar", good=True)
        elif outcome(0, None, code) == NOTHING:
            self._end(question)
        else:
            self.on_answer(question, why=code, good=False)

    def on_answer(self, question: "_Question", *, why: str, good: bool) -> None:
        """The check is over; `why` says what was answered, or that nothing was."""
        if not self._end(question):
            return
        result = "healthy" if good else "unhealthy"
        self._environment.metrics.health_checked(self._cluster, result)
        if not self._health.learn(good=good):
            return
        self._endpoint.healthy = good
        level, text = (
            (logging.INFO, "%s: %s is healthy again: %s")
            if good
            else (logging.WARNING, "%s: %s is unhealthy: %s")
        )
        log.log(level, text, self._cluster, self._endpoint.name, why)
        self._changed()

    def _end(self, question: "_Question") -> bool:
        """Wait for the next check; return False when this one was over already."""
        if question is not self._asked:
            return False
        self._asked = None
        self._timer.cancel()
        wait = health.interval(self.spec, self._environment.random())
        self._timer = self._environment.loop.call_later(wait, self._ask)
        return True


class _Question(Protocol):
    """One check under way."""

    def begin(self) -> None: ...
    def give_up(self) -> None: ...


class _Get:
    """A request; to the pool, an exchange."""

    def __init__(self, spec: HealthCheckSpec, endpoint: Endpoint, check: HealthCheck) -> None:
        self._spec = spec
        self._endpoint = endpoint
        self._check = check
        self._upstream: Upstream | None = None
        self._status = 0
        self._shed = False
        self.head = self._head()

    def _head(self) -> RequestHead:
        authority = self._endpoint.name.encode()
        return RequestHead(b"GET", authority, self._spec.path.encode(), [_AGENT])

    def begin(self) -> None:
        self._endpoint.pool.acquire(self)

    def give_up(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            self._endpoint.pool.forget(self)
        else:
            upstream.reset()

    # What an exchange is told ---------------------------------------------------------------------

    def on_upstream_ready(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.send_head(self.head)

    def on_upstream_failed(self, code: str) -> None:
        self._check.on_no_answer(self, code)

    def on_response_informational(self, head: ResponseHead) -> None:
        """The answer follows."""

    def on_response_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._shed = self._endpoint.cluster.mtls and shed(head.mesh_fields)

    def on_response_data(self, data: bytes, last: bool = False) -> None:  # noqa: ARG002
        if last:
            self.on_response_end(None)

    def on_response_end(self, trailers: Fields | None) -> None:
        if self._shed:  # busy is not ill: without it, the others would have even more to do
            self._check.on_no_answer(self, SHED)
        else:
            self._learn(trailers)

    def _learn(self, trailers: Fields | None) -> None:  # noqa: ARG002 - gRPC has its status there
        good = health.is_good(self._spec, self._status)
        self._check.on_answer(self, why=f"status {self._status}", good=good)

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        self._upstream = None
        if reused:
            self._check.on_closed_before(self)
        else:
            self._check.on_no_answer(self, code)

    def on_upstream_blocked(self) -> None:
        """There is nothing more to say."""

    def on_upstream_writable(self) -> None:
        """There is nothing more to say."""


class _Call(_Get):
    """The same for gRPC's health protocol."""

    def __init__(self, spec: HealthCheckSpec, endpoint: Endpoint, check: HealthCheck) -> None:
        self._question = health.grpc_question(spec.service)
        self._answer = b""
        self._grpc_status: str | None = None
        super().__init__(spec, endpoint, check)

    def _head(self) -> RequestHead:
        fields = [_AGENT, _GRPC_TYPE, _TE]
        authority = self._endpoint.name.encode()
        return RequestHead(b"POST", authority, health.GRPC_PATH, fields, len(self._question))

    def on_upstream_ready(self, upstream: Upstream) -> None:
        super().on_upstream_ready(upstream)
        upstream.send_data(self._question, True)

    def on_response_head(self, head: ResponseHead) -> None:
        super().on_response_head(head)
        self._grpc_status = grpc.status_of(head.fields)

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        if len(self._answer) < health.GRPC_ANSWER_LIMIT:
            self._answer += data
        super().on_response_data(data, last)

    def _learn(self, trailers: Fields | None) -> None:
        if trailers is not None:
            self._grpc_status = grpc.status_of(trailers) or self._grpc_status
        serving = health.is_serving(self._answer)
        good = self._status == 200 and self._grpc_status == "0" and serving
        why = f"grpc-status {self._grpc_status}" if self._grpc_status != "0" else "not serving"
        self._check.on_answer(self, why="serving" if good else why, good=good)


class _Connect:
    """A connection and nothing else; to the endpoint, a relay."""

    def __init__(
        self,
        spec: HealthCheckSpec,  # noqa: ARG002 - as the others
        endpoint: Endpoint,
        check: HealthCheck,
    ) -> None:
        self._endpoint = endpoint
        self._check = check
        self._way: Way | None = None

    def begin(self) -> None:
        self._endpoint.connect(self)

    def give_up(self) -> None:
        way, self._way = self._way, None
        if way is None:
            self._endpoint.disconnect(self)
        else:
            way.withdraw()

    # What a relay is told -------------------------------------------------------------------------

    def on_upstream_ready(self, way: Way) -> None:
        self._way = way

    def on_upstream_connected(self) -> None:
        self.give_up()
        self._check.on_answer(self, why="connected", good=True)

    def on_upstream_failed(self, code: str) -> None:
        self._way = None
        self._check.on_no_answer(self, code)

    def on_upstream_reset(self, code: str) -> None:
        self.on_upstream_failed(code)

    def on_upstream_data(self, data: Any) -> None:
        """A server that speaks first: it is there."""

    def on_upstream_end(self) -> None:
        """It was there."""

    def on_upstream_blocked(self) -> None:
        """There is nothing to say."""

    def on_upstream_writable(self) -> None:
        """There is nothing to say."""

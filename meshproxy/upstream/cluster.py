"""
A cluster: the servers behind a name, and which of them the next attempt goes to.

Which one that is, `policies/load_balancing` decides, among those that are in service (`use`).

A cluster outlives snapshots.  When a new one arrives, endpoints that stayed keep their
connections and counters; those that left finish what they have and take nothing new.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil, inf
from typing import Any, Protocol

from meshproxy import neighbours
from meshproxy.contract.policies import HealthCheckSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Fields, field
from meshproxy.policies import deadline
from meshproxy.policies.circuit_breaker import CLOSED, OPEN, STATES, CircuitBreaker
from meshproxy.policies.flow_sizes import FlowSizes
from meshproxy.policies.hedging import Latencies
from meshproxy.policies.limits import UNLIMITED, Limit, Limits
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.load_balancing.peak_ewma import FAILED, is_overload, observe
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.policies.load_shedding import LoadShedding
from meshproxy.policies.mirroring import Load
from meshproxy.policies.outcome import (
    GATEWAY_ERROR,
    HURRIED,
    LOCAL_FAILURE,
    NOTHING,
    SERVER_ERROR,
    SHED,
    outcome,
)
from meshproxy.policies.outlier_detection import IN_SERVICE, PROBATION, Host, OutlierDetection
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.policies.stalled_bodies import StalledBodies
from meshproxy.telemetry.gauges import Gauges
from meshproxy.telemetry.metrics import Metrics

from . import pool, tcp
from .availability import Availability
from .bulk import BulkPool
from .health_check import HealthCheck
from .tcp import Relay, Sockets
from .trunk import TrunkPool

log = logging.getLogger("meshproxy.upstream")

PANIC_PERCENT = 50.0
"""Where outlier detection, which has a setting for it, is off."""


class Environment(pool.Environment, tcp.Environment, Protocol):
    """What a cluster needs of the process."""

    metrics: Metrics
    random: Callable[[], float]
    workers: int


class Endpoint(neighbours.Endpoint):
    """
    One server.

    Attributes:
        active: Attempts under way, waiting for a connection included.
        breaker: The cluster's; None where there is none, or where the endpoint has left it.
        detection: The same, of outliers.
        healthy: Its health checks do not say otherwise.
        host: What its answers say of it.
        limits: Of its own.
        name: ``address:port``.
        priority, since, latency, measured: See `policies.load_balancing.endpoint`.
    """

    __slots__ = (
        "_bulk",
        "_check",
        "_environment",
        "_flow_sizes",
        "_limited",
        "_measuring",
        "_opaque",
        "_retrying",
        "breaker",
        "cluster",
        "detection",
        "healthy",
        "host",
        "limits",
        "pool",
        "spec",
    )

    def __init__(
        self,
        cluster: ClusterSpec,
        spec: EndpointSpec,
        environment: Environment,
        shared: Limits,
        flow_sizes: FlowSizes,
    ) -> None:
        """`shared` are the limits of the whole cluster, `flow_sizes` what its connections carry."""
        self._flow_sizes = flow_sizes
        self._environment = environment
        self.cluster = cluster
        self.spec = spec
        self.name = f"{spec.address}:{spec.port}"
        self.weight = spec.weight
        self.priority = spec.priority
        self.version = spec.version
        self.active = 0
        self.since = -inf
        self.latency = 0.0
        self.measured = -inf
        self._measuring = cluster.balancing.algorithm == "peak-ewma"
        self.healthy = True
        self._check: HealthCheck | None = None
        self.host = Host(self.name)
        self.detection: OutlierDetection | None = None
        self.breaker: CircuitBreaker | None = None
        self.limits = Limits(cluster.endpoint_limits)
        self._retrying: set[Any] = set()  # those known to, where they are limited
        self.pool = pool.Pool(cluster, spec, environment, self.limits, shared)
        # Made when first needed: most never are.
        self._bulk: BulkPool | None = None
        self._opaque: TrunkPool | Sockets | None = None
        self._obey_limits()

    def __repr__(self) -> str:
        return f"<Endpoint {self.spec.address}:{self.spec.port} active {self.active}>"

    # Opaque connections: through a trunk to a peer, otherwise as they are ------------------------

    def connect(self, relay: Relay) -> None:
        """Answer the relay with `on_upstream_ready` or `on_upstream_failed`, now or later."""
        if self._opaque is None:
            environment = self._environment
            if self.cluster.mtls:
                self._opaque = TrunkPool(self.cluster, self.spec, environment, self._flow_sizes)
            else:
                self._opaque = Sockets(self.cluster, self.spec, environment)
        connections = self.limits.connections
        if connections.count + self._opaque.carried >= connections.most:
            self._environment.metrics.overflowed(self.cluster.name, "endpoint", connections.name)
            relay.on_upstream_failed("overflow")
        else:
            self._opaque.connect(relay)

    def disconnect(self, relay: Relay) -> None:
        """The relay waits no longer."""
        if self._opaque is not None:
            self._opaque.disconnect(relay)

    # How it goes ----------------------------------------------------------------------------------

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        """
        Learn how an attempt went; told once for each (see `neighbours.Endpoint.judge`).

        One question tells nearly all successes; that is what they cost.
        """
        if code or status > 428 or (grpc_status is not None and grpc_status != "0"):
            self._judge_doubtful(status, grpc_status, code, seconds, began)
            return
        if self._measuring and seconds:
            observe(self, seconds, began + seconds)
        host = self.host
        host.requests += 1
        if host.remarkable and self.detection is not None:
            self.detection.succeeded(host, began, self._environment.now())
        if self.breaker is not None:
            self.breaker.succeeded(seconds, began, self._environment.now())

    def _judge_doubtful(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        result = outcome(status, grpc_status, code)
        host, detection, breaker = self.host, self.detection, self.breaker
        if result == NOTHING:
            return self._learn_nothing(code, seconds, began)
        now = self._environment.now()
        if self._measuring:
            if result in (GATEWAY_ERROR, LOCAL_FAILURE) or is_overload(status, grpc_status):
                observe(self, max(seconds, FAILED), now)
            elif seconds:
                observe(self, seconds, began + seconds)
        host.requests += 1
        if detection is not None:
            _blame(detection, host, result, began, now)
        if breaker is not None:
            if result in (GATEWAY_ERROR, LOCAL_FAILURE):
                breaker.failed(began, now)
            else:
                breaker.succeeded(seconds, began, now)
        return None

    def _learn_nothing(self, code: str, seconds: float, began: float) -> None:
        """It was no fault of the endpoint's; a probe is given back."""
        if self._measuring:
            if code == SHED:
                observe(self, max(seconds, FAILED), self._environment.now())
            elif code == HURRIED and seconds > self.latency:  # it would have taken even longer
                observe(self, seconds, self._environment.now())
        if self.detection is not None:
            self.detection.given_up(self.host, began=began)
        if self.breaker is not None:
            self.breaker.given_up(began)

    # As configured --------------------------------------------------------------------------------

    def adopt(self, cluster: ClusterSpec, spec: EndpointSpec) -> None:
        """Obey a new spec of the same server."""
        self.cluster = cluster
        self.spec = spec
        self.weight, self.priority, self.version = spec.weight, spec.priority, spec.version
        self._measuring = cluster.balancing.algorithm == "peak-ewma"
        for connections in (self.pool, self._bulk, self._opaque):
            if connections is not None:
                connections.cluster, connections.endpoint = cluster, spec
        self._obey_limits()

    def _obey_limits(self) -> None:
        spec = self.cluster.endpoint_limits
        self.limits.adopt(spec)
        self._limited = spec.requests is not None or spec.retries is not None

    # Requests --------------------------------------------------------------------------------------

    def acquire(self, exchange: Any) -> None:
        if not self._limited or not self._overflows(exchange):
            self.pool.acquire(exchange)

    def acquire_apart(self, exchange: Any) -> None:
        """As `acquire`, for a large body: it need not share a connection with others."""
        if not self.cluster.mtls:  # an app's connections are not shared
            return self.acquire(exchange)
        if self._bulk is None:
            pool = self.pool
            self._bulk = BulkPool(pool.cluster, pool.endpoint, self._environment, *pool.limits)
        if self._limited and self._overflows(exchange):
            return None
        return None if self._bulk.lend(exchange) else self.pool.acquire(exchange)

    def forget(self, exchange: Any) -> None:
        self.pool.forget(exchange)

    def _overflows(self, exchange: Any) -> bool:
        """Say whether one of the endpoint's limits forbids the attempt; then it has been told so."""
        limits, name = self.limits, self.cluster.name
        if self.active > limits.requests.most:  # it has been counted already
            self._environment.metrics.overflowed(name, "endpoint", limits.requests.name)
            exchange.on_upstream_failed("overflow")
            return True
        if exchange.attempts > 1 and limits.retries.most != UNLIMITED:
            still = {one for one in self._retrying if one.endpoint is self and one is not exchange}
            self._retrying = still
            if len(still) >= limits.retries.most:
                self._environment.metrics.overflowed(name, "endpoint", limits.retries.name)
                exchange.on_upstream_failed("overflow")
                return True
            still.add(exchange)
        return False

    def check(self, spec: HealthCheckSpec | None, changed: Callable[[], None]) -> None:
        """Have its health checked as `spec` says; `changed` is called when that has an effect."""
        if self._check is not None and self._check.spec == spec:
            return
        self._check_no_more()
        if spec is None:
            self.healthy = True
        else:
            self._check = HealthCheck(spec, self.cluster.name, self, self._environment, changed)

    def _check_no_more(self) -> None:
        if self._check is not None:
            self._check.close()
            self._check = None

    def sweep(self, now: float) -> None:
        for connections in (self.pool, self._bulk, self._opaque):
            if isinstance(connections, pool.Pool):
                connections.sweep(now)

    def retire(self) -> None:
        """Keep nothing that is not in use; how that goes concerns nobody any more."""
        self.breaker = self.detection = None
        self._check_no_more()
        for connections in (self.pool, self._bulk, self._opaque):
            if isinstance(connections, pool.Pool):
                connections.retire()

    def close(self) -> None:
        """End everything now."""
        self._check_no_more()
        for connections in (self.pool, self._bulk, self._opaque):
            if connections is not None:
                connections.close()

    def statistics(self) -> dict[str, Any]:
        """Return its state, for `/clusters`."""
        spec, opaque = self.spec, self._opaque
        statistics = {
            "address": f"{spec.address}:{spec.port}",
            "workload": spec.workload,
            "version": self.version,
            "weight": self.weight,
            "priority": self.priority,
            "identities": spec.identities,
            "active": self.active,
            "latency_ms": round(self.latency * 1000, 3),
            **self.pool.statistics(),
        }
        if self._bulk is not None:
            statistics["bulk"] = self._bulk.statistics()
        if opaque is not None:
            statistics["trunks" if self.cluster.mtls else "tcp"] = opaque.statistics()
        return statistics


def _blame(detection: OutlierDetection, host: Host, result: int, began: float, now: float) -> None:
    if result == LOCAL_FAILURE:
        detection.failed_locally(host, began=began, now=now)
    elif result in (GATEWAY_ERROR, SERVER_ERROR):
        detection.answered_5xx(host, gateway=result == GATEWAY_ERROR, began=began, now=now)
    elif host.remarkable:
        detection.succeeded(host, began, now)


class Cluster(neighbours.Cluster):
    """
    A named set of equal servers.

    Attributes:
        available: The endpoints among which the balancer chooses, as a tuple that is never changed:
            another state is another tuple.
        connections, requests: How many there are, and how many there may be.
        budget: How much of its load may be retries; whoever begins a request adds to it.
        breaker: None where there is none.
        connections, requests, retries: How many there are, and how many there may be (`limits`).
        hash_key: What requests are hashed by, if anything.
        latencies: Of requests that may be hedged.
        mtls: Its endpoints prove to be mesh proxies.
        pick: Chooses the endpoint for an attempt: `Balancer.pick` among those that are available.
        retry: Of routes that say nothing.
        revoked: Identities of endpoints that are left out, because those are all they could prove.
        session: Of routes that have none of their own.
        shedding: Of an app: how many requests it is given at once; None for all that come.
        mirrors: What copies of other clusters' requests take up.
        stalled: Finds requests that hold places and do not come.
        sticky: There is a `hash_key` or a `session`.
    """

    __slots__ = (
        "_availability", "_balancing", "_cut_off", "_environment", "_flow_sizes", "_named", "_warming",
        "breaker", "connections", "endpoints", "limits", "revoked", "spec",
    )  # fmt: skip

    available: tuple[Endpoint, ...]
    pick: Callable[[Any, int | None], Endpoint | None]

    def __init__(self, spec: ClusterSpec, environment: Environment) -> None:
        self.spec = spec
        self.service = spec.service or spec.name
        self.mtls = spec.mtls
        self.retry = Retry(spec.retry)
        self.budget = RetryBudget(spec.retry_budget)
        self.latencies = Latencies()
        self.timeouts = deadline.of_cluster(spec)
        self.endpoints: Sequence[Endpoint] = ()
        self.revoked: tuple[str, ...] = ()
        self._cut_off = False  # and that is why nobody can be called
        self.shedding = None
        self.mirrors = Load()
        self.stalled = StalledBodies()
        self.available = ()
        self.limits = Limits(spec.limits)
        self.connections = self.limits.connections
        self.requests = self.limits.requests
        self.retries = self.limits.retries
        self.breaker: CircuitBreaker | None = None
        self._availability = Availability(spec.name, environment, self._restate)
        self.hash_key = None
        self.session = None
        self.sticky = False
        self._environment = environment
        self._balancing = Balancing[Endpoint](spec.balancing, environment.random, environment.now)
        self._flow_sizes = FlowSizes()
        self._warming = False  # somebody is in slow start
        # Endpoints in service by what tokens call them, and whose tokens those are.
        self._named: tuple[Tokens, dict[bytes, Endpoint]] | None = None
        self._balance()

    def __repr__(self) -> str:
        return f"<Cluster {self.spec.name} {list(self.endpoints)}>"

    def adopt(
        self, spec: ClusterSpec, endpoints: Sequence[EndpointSpec], revoked: Iterable[str] = ()
    ) -> None:
        """
        Obey a new spec: what stayed keeps its connections and counters.

        Args:
            spec: Of the cluster.
            endpoints: Those that may be called.
            revoked: Identities of those that may not.
        """
        staying = {}
        if _wire(spec) == _wire(self.spec):
            staying = {_server(endpoint.spec): endpoint for endpoint in self.endpoints}
        self._adopt_shedding(spec)
        other_policies = (self.spec.outliers, self.spec.health_check)
        self.spec = spec
        self.service = spec.service or spec.name
        self.mtls = spec.mtls
        self.retry = Retry(spec.retry)
        self.budget.adopt(spec.retry_budget)
        self.timeouts = deadline.of_cluster(spec)
        before = [(endpoint, endpoint.spec) for endpoint in self.endpoints]
        changed = spec.balancing != self._balancing.spec
        if changed:
            self._balancing = Balancing(
                spec.balancing, self._environment.random, self._environment.now
            )
        self.hash_key, self.session = _hash_key(spec), _session(spec)
        self.sticky = self.hash_key is not None or self.session is not None
        # The first ones all begin at once: nobody is there who could spare them.
        since = self._environment.now() if self.endpoints else -inf
        adopted = []
        for wanted in endpoints:
            endpoint = staying.get(_server(wanted))
            if endpoint is None:
                endpoint = Endpoint(spec, wanted, self._environment, self.limits, self._flow_sizes)
                endpoint.since = since
            else:
                endpoint.adopt(spec, wanted)
            adopted.append(endpoint)
        kept = {id(endpoint) for endpoint in adopted}
        for endpoint in self.endpoints:
            if id(endpoint) not in kept:
                endpoint.retire()
        self.endpoints = tuple(adopted)
        # Most updates are about other clusters: then what picks goes on where it is.
        changed = changed or before != [(endpoint, endpoint.spec) for endpoint in adopted]
        # Health checks that end leave nobody unhealthy behind.
        changed = changed or (spec.outliers, spec.health_check) != other_policies
        self.limits.adopt(spec.limits)
        self._watch(spec)
        self._tell_revoked(tuple(sorted(set(revoked))))
        if changed:
            self._restate()

    def _tell_revoked(self, revoked: tuple[str, ...]) -> None:
        """Note, and log when it changes, whether nobody is left because of revoked identities."""
        before, self._cut_off = self._cut_off, bool(revoked) and not self.endpoints
        self.revoked = revoked
        if self._cut_off and not before:
            log.warning("%s: cannot be called: %s revoked", self.spec.name, _all_of(revoked))
        elif before and not self._cut_off:
            log.info("%s: is not cut off any more", self.spec.name)

    def _watch(self, spec: ClusterSpec) -> None:
        """Have those who judge know whom, and endpoints by whom they are judged."""
        if spec.breaker is None:
            self.breaker = None
        elif self.breaker is None or self.breaker.spec != spec.breaker:  # begins anew, closed
            self.breaker = CircuitBreaker(spec.breaker, self._on_breaker)
        self._shut(self.breaker is not None and self.breaker.state != CLOSED)
        self._availability.adopt(spec.outliers, self.endpoints)
        for endpoint in self.endpoints:
            endpoint.breaker = self.breaker
            endpoint.detection = self._availability.detection if endpoint.weight else None
            endpoint.check(spec.health_check, self._restate)

    def _restate(self) -> None:
        """Choose from now on among what is in service now."""
        outliers = self.spec.outliers
        panic_percent = PANIC_PERCENT if outliers is None else outliers.panic_percent
        available = self._availability.among(
            self.endpoints, panic_percent, self._balancing.bearable
        )
        if available != self.available:
            self._use(available)
        else:
            self._balance()

    def _use(self, available: tuple[Endpoint, ...]) -> None:
        """Choose from now on among these; who comes back into service begins slowly."""
        if self.available and self.spec.balancing.slow_start:
            before, now = set(self.available), self._environment.now()
            for endpoint in available:
                if endpoint not in before:
                    endpoint.since = now
        self.available = available
        self._balance()

    def _balance(self) -> None:
        """Have what picks know of all that has changed."""
        self.pick = self._balancing.among(self.endpoints, self.available).pick
        if not self._availability.panicking and any(
            endpoint.host.state is PROBATION for endpoint in self.available
        ):
            self.pick = partial(self._pick_on_probation, self.pick)
        self._warming = self._balancing.warming(self.available)
        self._named = None

    def _pick_on_probation(
        self,
        pick: Callable[[Any, int | None], Endpoint | None],
        avoid: tuple[Endpoint, ...] | None,
        key: int | None,
    ) -> Endpoint | None:
        """Pick while somebody is on probation: of whom one request at a time is asked."""
        chosen = pick(avoid, key)
        if chosen is None or self._may_have_one_more(chosen):
            return chosen
        other = pick((*(avoid or ()), chosen), key)
        if other is not None and other is not chosen and self._may_have_one_more(other):
            return other
        sure = [one for one in self.available if one.host.state is IN_SERVICE and one.weight]
        untried = [one for one in sure if avoid is None or one not in avoid]
        # Where there is nobody else: better one more than none.
        return next(iter(untried or sure), chosen)

    def _may_have_one_more(self, endpoint: Endpoint) -> bool:
        detection = endpoint.detection
        if endpoint.host.state is not PROBATION or detection is None:
            return True
        return detection.probe(endpoint.host, self._environment.now())

    def resume(self, wanted: bytes, tokens: Tokens) -> Endpoint | None:
        """Return the endpoint that a token means, if it is in service."""
        named = self._named
        if named is None or named[0] is not tokens:
            known = {tokens.id_of(endpoint.name): endpoint for endpoint in self.available}
            self._named = named = (tokens, known)
        endpoint = named[1].get(wanted)
        if endpoint is None or self._availability.panicking or self._may_have_one_more(endpoint):
            return endpoint
        return None

    # Whether anybody may be called -------------------------------------------------------------------

    def _shut(self, shut: bool) -> None:
        self.requests.shut = self.connections.shut = shut

    def _on_breaker(self, why: str) -> None:
        breaker = self.breaker
        assert breaker is not None
        self._shut(breaker.state != CLOSED)
        self._environment.metrics.breaker_changed(self.spec.name, breaker.state)
        level = logging.WARNING if breaker.state == OPEN else logging.INFO
        log.log(level, "%s: circuit breaker %s: %s", self.spec.name, breaker.state, why)

    def admits(self, limit: Limit) -> bool:
        """Say whether an attempt may be made although its limit is full or shut."""
        if limit.full or not self.available:
            return False
        return self.breaker is None or self.breaker.admits(self._environment.now())

    def refusal(self, limit: Limit) -> tuple[str, str, Fields]:
        """
        Return why there is nobody to pick: a code, its detail, and what tells the client more.

        Args:
            limit: The one that whoever asks counts under.
        """
        if limit.full:
            self._environment.metrics.overflowed(self.spec.name, "cluster", limit.name)
            return "overflow", limit.name, []
        if self._cut_off:
            return "identity-revoked", ", ".join(self.revoked), []
        breaker = self.breaker
        if breaker is None or breaker.state == CLOSED or not self.available:
            return "no-healthy-endpoint", "", []
        seconds = max(1, ceil(breaker.retry_after(self._environment.now())))
        return "circuit-open", "", [field(b"Retry-After", b"%d" % seconds)]

    # The rest of life -----------------------------------------------------------------------------

    def _adopt_shedding(self, spec: ClusterSpec) -> None:
        environment, wanted = self._environment, spec.shedding
        if wanted is None:
            self.shedding = None
        elif self.shedding is None:
            self.shedding = LoadShedding(wanted, environment.random, parts=environment.workers)
        elif wanted != self.spec.shedding:
            self.shedding.adopt(wanted, parts=environment.workers)

    def sweep(self, now: float) -> None:
        """Close connections that nobody has needed for long."""
        for endpoint in self.endpoints:
            endpoint.sweep(now)
        if self._warming and not self._balancing.warming(self.available):
            self._balance()

    def close(self) -> None:
        """End everything now."""
        self._availability.close()
        for endpoint in self.endpoints:
            endpoint.close()

    def retire(self) -> None:
        """The cluster is gone from the configuration: finish what runs, keep nothing."""
        self._availability.close()
        for endpoint in self.endpoints:
            endpoint.retire()

    def statistics(self) -> dict[str, Any]:
        """Return its state, for `/clusters`."""
        breaker, availability = self.breaker, self._availability
        return {
            "name": self.spec.name,
            "service": self.service,
            "mtls": self.spec.mtls,
            "retry_budget": self.budget.statistics(self._environment.now()),
            "mirrored": self.mirrors.active,
            **({"revoked": self.revoked} if self.revoked else {}),
            **({} if self.shedding is None else {"shedding": self.shedding.statistics()}),
            "balancing": self.spec.balancing.algorithm,
            "breaker": breaker and breaker.statistics(self._environment.now()),
            "limits": self.limits.statistics(),
            "panicking": availability.panicking,
            "endpoints": [
                {**endpoint.statistics(), **availability.statistics(endpoint)}
                for endpoint in self.endpoints
            ],
        }

    def gauge(self, gauges: Gauges) -> None:
        """Tell how things stand, for `/metrics`."""
        name, availability = self.spec.name, self._availability
        if self.breaker is not None:
            gauges.breaker(name, self.breaker.state, STATES)
        gauges.retries(name, self.budget.statistics(self._environment.now())["left"])
        gauges.endpoints(name, availability.states(), panicking=availability.panicking)
        for limit in self.limits.all:
            if limit.most != UNLIMITED:
                gauges.remaining(name, limit.name, limit.room)
        if self.shedding is not None:
            gauges.concurrency(name, int(self.shedding.limit), self.shedding.active)


def _all_of(identities: Sequence[str]) -> str:
    return f"{', '.join(identities)} {'is' if len(identities) == 1 else 'are'}"


def check_policies(spec: ClusterSpec) -> None:
    """
    Find what is wrong with how a cluster is balanced or checked, before it has to be obeyed.

    Raises:
        ContractError: Something is.
    """
    try:
        _hash_key(spec)
        _session(spec)
    except ContractError as error:
        raise ContractError(f"cluster/{spec.name} {error.path}", error.reason) from None
    check = spec.health_check
    if check is not None and check.type == "grpc" and not spec.mtls and spec.protocol == "http1":
        why = "grpc needs protocol http2"  # between sidecars, the far one knows what its app speaks
        raise ContractError(f"cluster/{spec.name} health_check.type", why)


def _hash_key(spec: ClusterSpec) -> HashKey | None:
    balancing = spec.balancing
    if balancing.algorithm not in ("ring-hash", "maglev"):
        return None
    return HashKey(balancing.hash_keys, "balancing.hash_keys") if balancing.hash_keys else None


def _session(spec: ClusterSpec) -> Session | None:
    return None if spec.session is None else Session(spec.session)


def _server(spec: EndpointSpec) -> tuple[str, int, tuple[str, ...]]:
    """What makes an endpoint the same server: a changed identity needs new connections."""
    return (spec.address, spec.port, spec.identities)


def _wire(spec: ClusterSpec) -> tuple[str, bool, str]:
    """How endpoints are spoken with: when it changes, no connection can stay."""
    return (spec.name, spec.mtls, spec.protocol)

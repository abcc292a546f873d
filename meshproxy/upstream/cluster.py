"""
A cluster: the servers behind a name, and which of them the next attempt goes to.

Which one that is, `policies/load_balancing` decides, among those that are in service (`use`).

A cluster outlives snapshots.  When a new one arrives, endpoints that stayed keep their
connections and counters; those that left finish what they have and take nothing new.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Fields
from meshproxy.policies import deadline
from meshproxy.policies.hedging import Latencies
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.load_balancing.peak_ewma import FAILED, is_failure, observe
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.relay import Relay

from . import pool
from .tcp import Sockets
from .trunk import TrunkPool


class Environment(pool.Environment, Protocol):
    """What a cluster needs of the process."""

    random: Callable[[], float]


class Endpoint:
    """
    One server.

    Attributes:
        active: Attempts under way, waiting for a connection included.
        name: ``address:port``.
        priority, since, latency, measured: See `policies.load_balancing.endpoint`.
    """

    __slots__ = (
        "_environment",
        "_opaque",
        "acquire",
        "active",
        "cluster",
        "forget",
        "latency",
        "measured",
        "name",
        "pool",
        "priority",
        "since",
        "spec",
        "version",
        "weight",
    )

    def __init__(self, cluster: ClusterSpec, spec: EndpointSpec, environment: Environment) -> None:
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
        self.pool = pool.Pool(cluster, spec, environment)
        self._opaque: TrunkPool | Sockets | None = None  # made when first needed: most never are
        # The pool's own methods: delegates would be one call more per request.
        self.acquire = self.pool.acquire
        self.forget = self.pool.forget

    def __repr__(self) -> str:
        return f"<Endpoint {self.spec.address}:{self.spec.port} active {self.active}>"

    # Opaque connections: through a trunk to a peer, otherwise as they are ------------------------

    def connect(self, relay: Relay) -> None:
        """Answer the relay with `on_upstream_ready` or `on_upstream_failed`, now or later."""
        if self._opaque is None:
            kind = TrunkPool if self.cluster.mtls else Sockets
            self._opaque = kind(self.cluster, self.spec, self._environment)
        self._opaque.connect(relay)

    def disconnect(self, relay: Relay) -> None:
        """The relay waits no longer."""
        if self._opaque is not None:
            self._opaque.disconnect(relay)

    # How it goes ----------------------------------------------------------------------------------

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        """Learn how an attempt went; told once for each (see `exchange.Endpoint.judge`)."""
        if self.cluster.balancing.algorithm == "peak-ewma":
            if is_failure(status, grpc_status, code):
                observe(self, max(seconds, FAILED), self._environment.now())
            elif seconds:
                observe(self, seconds, began + seconds)

    # As configured --------------------------------------------------------------------------------

    def adopt(self, cluster: ClusterSpec, spec: EndpointSpec) -> None:
        """Obey a new spec of the same server."""
        self.cluster = cluster
        self.spec = spec
        self.weight, self.priority, self.version = spec.weight, spec.priority, spec.version
        for connections in (self.pool, self._opaque):
            if connections is not None:
                connections.cluster, connections.endpoint = cluster, spec

    def sweep(self, now: float) -> None:
        self.pool.sweep(now)
        if isinstance(self._opaque, TrunkPool):
            self._opaque.sweep(now)

    def retire(self) -> None:
        """Keep nothing that is not in use."""
        self.pool.retire()
        if isinstance(self._opaque, TrunkPool):
            self._opaque.retire()

    def close(self) -> None:
        """End everything now."""
        self.pool.close()
        if self._opaque is not None:
            self._opaque.close()

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
        if opaque is not None:
            statistics["trunks" if self.cluster.mtls else "tcp"] = opaque.statistics()
        return statistics


class Cluster:
    """
    A named set of equal servers.

    Attributes:
        available: The endpoints among which the balancer chooses, as a tuple that is never changed:
            another state is another tuple.
        connections, requests: How many there are, and how many there may be.
        budget: How much of its load may be retries; whoever begins a request adds to it.
        hash_key: What requests are hashed by, if anything.
        latencies: Of requests that may be hedged.
        mtls: Its endpoints prove to be mesh proxies.
        pick: Chooses the endpoint for an attempt: `Balancer.pick` among those that are available.
        retry: Of routes that say nothing.
        session: Of routes that have none of their own.
        sticky: There is a `hash_key` or a `session`.
    """

    __slots__ = (
        "_balancing", "_environment", "_named", "_warming", "available", "budget", "connections",
        "endpoints", "hash_key", "latencies", "mtls", "pick", "requests", "retry", "service",
        "session", "spec", "sticky", "timeouts",
    )  # fmt: skip

    def __init__(self, spec: ClusterSpec, environment: Environment) -> None:
        self.spec = spec
        self.service = spec.service or spec.name
        self.mtls = spec.mtls
        self.retry = Retry(spec.retry)
        self.budget = RetryBudget(spec.retry_budget)
        self.latencies = Latencies()
        self.timeouts = deadline.of_cluster(spec)
        self.endpoints: Sequence[Endpoint] = ()
        self.available: tuple[Endpoint, ...] = ()
        self.connections = Limit(spec.limits.connections)
        self.requests = Limit(spec.limits.requests)
        self.hash_key: HashKey | None = None
        self.session: Session | None = None
        self.sticky = False
        self._environment = environment
        self._balancing = Balancing[Endpoint](spec.balancing, environment.random, environment.now)
        self._warming = False  # somebody is in slow start
        # Endpoints in service by what tokens call them, and whose tokens those are.
        self._named: tuple[Tokens, dict[bytes, Endpoint]] | None = None
        # A method would be one call more per request.
        self.pick: Callable[[Any, int | None], Endpoint | None]
        self._balance()

    def __repr__(self) -> str:
        return f"<Cluster {self.spec.name} {list(self.endpoints)}>"

    def adopt(self, spec: ClusterSpec, endpoints: Sequence[EndpointSpec]) -> None:
        """Obey a new spec: what stayed keeps its connections and counters."""
        staying = {}
        if _wire(spec) == _wire(self.spec):
            staying = {_server(endpoint.spec): endpoint for endpoint in self.endpoints}
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
                endpoint = Endpoint(spec, wanted, self._environment)
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
        self.connections.set(spec.limits.connections)
        self.requests.set(spec.limits.requests)
        if changed:
            self._restate()

    def _restate(self) -> None:
        """Choose from now on among what is in service now."""
        self._use(tuple(self.endpoints))

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
        self._warming = self._balancing.warming(self.available)
        self._named = None

    def resume(self, wanted: bytes, tokens: Tokens) -> Endpoint | None:
        """Return the endpoint that a token means, if it is in service."""
        named = self._named
        if named is None or named[0] is not tokens:
            known = {tokens.id_of(endpoint.name): endpoint for endpoint in self.available}
            self._named = named = (tokens, known)
        return named[1].get(wanted)

    def refusal(self, limit: Limit) -> tuple[str, str, Fields]:
        """
        Return why there is nobody to pick: a code, its detail, and what tells the client more.

        Args:
            limit: The one that whoever asks counts under.
        """
        if limit.full:
            limit.overflows += 1
            return "overflow", "", []
        return "no-healthy-endpoint", "", []

    def sweep(self, now: float) -> None:
        """Close connections that nobody has needed for long."""
        for endpoint in self.endpoints:
            endpoint.sweep(now)
        if self._warming and not self._balancing.warming(self.available):
            self._balance()

    def close(self) -> None:
        """End everything now."""
        for endpoint in self.endpoints:
            endpoint.close()

    def retire(self) -> None:
        """The cluster is gone from the configuration: finish what runs, keep nothing."""
        for endpoint in self.endpoints:
            endpoint.retire()

    def statistics(self) -> dict[str, Any]:
        """Return its state, for `/clusters`."""
        return {
            "name": self.spec.name,
            "service": self.service,
            "mtls": self.spec.mtls,
            "retry_budget": self.budget.statistics(self._environment.now()),
            "balancing": self.spec.balancing.algorithm,
            "endpoints": [endpoint.statistics() for endpoint in self.endpoints],
        }


def check_balancing(spec: ClusterSpec) -> None:
    """
    Find what is wrong with how a cluster is balanced, before it has to be obeyed.

    Raises:
        ContractError: Something is.
    """
    try:
        _hash_key(spec)
        _session(spec)
    except ContractError as error:
        raise ContractError(f"cluster/{spec.name} {error.path}", error.reason) from None


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

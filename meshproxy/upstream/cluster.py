"""
A cluster: the servers behind a name, and which of them the next attempt goes to.

A cluster outlives snapshots.  When a new one arrives, endpoints that stayed keep their
connections and counters; those that left finish what they have and take nothing new.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.message import Fields
from meshproxy.policies.hedging import Latencies
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing import LeastRequest
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
    """

    __slots__ = (
        "_environment",
        "_opaque",
        "acquire",
        "active",
        "cluster",
        "forget",
        "pool",
        "spec",
        "version",
        "weight",
    )

    def __init__(self, cluster: ClusterSpec, spec: EndpointSpec, environment: Environment) -> None:
        self._environment = environment
        self.cluster = cluster
        self.spec = spec
        self.weight = spec.weight
        self.version = spec.version
        self.active = 0
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

    # As configured --------------------------------------------------------------------------------

    def adopt(self, cluster: ClusterSpec, spec: EndpointSpec) -> None:
        """Obey a new spec of the same server."""
        self.cluster = cluster
        self.spec = spec
        self.weight, self.version = spec.weight, spec.version
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
            "identities": spec.identities,
            "active": self.active,
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
        latencies: Of requests that may be hedged.
        mtls: Its endpoints prove to be mesh proxies.
        retry: Of routes that say nothing.
        pick: Chooses the endpoint for an attempt; another one than its argument if there is one.
    """

    __slots__ = (
        "_balancer",
        "_environment",
        "available",
        "budget",
        "connections",
        "endpoints",
        "latencies",
        "mtls",
        "pick",
        "requests",
        "retry",
        "service",
        "spec",
    )

    def __init__(self, spec: ClusterSpec, environment: Environment) -> None:
        self.spec = spec
        self.service = spec.service or spec.name
        self.mtls = spec.mtls
        self.retry = Retry(spec.retry)
        self.budget = RetryBudget(spec.retry_budget)
        self.latencies = Latencies()
        self.endpoints: Sequence[Endpoint] = ()
        self.available: tuple[Endpoint, ...] = ()
        self.connections = Limit(spec.limits.connections)
        self.requests = Limit(spec.limits.requests)
        self._environment = environment
        self._balancer: LeastRequest[Endpoint] = LeastRequest()
        # A method would be one call more per request.
        self.pick: Callable[[Any], Endpoint | None] = partial(
            self._balancer.pick, (), environment.random
        )

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
        adopted = []
        for wanted in endpoints:
            endpoint = staying.get(_server(wanted))
            if endpoint is None:
                endpoint = Endpoint(spec, wanted, self._environment)
            else:
                endpoint.adopt(spec, wanted)
            adopted.append(endpoint)
        kept = {id(endpoint) for endpoint in adopted}
        for endpoint in self.endpoints:
            if id(endpoint) not in kept:
                endpoint.retire()
        self.endpoints = tuple(adopted)
        self.connections.set(spec.limits.connections)
        self.requests.set(spec.limits.requests)
        self._restate()

    def _restate(self) -> None:
        """Choose from now on among what is in service now."""
        self.available = tuple(self.endpoints)
        self.pick = partial(self._balancer.pick, self.available, self._environment.random)

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
            "endpoints": [endpoint.statistics() for endpoint in self.endpoints],
        }


def _server(spec: EndpointSpec) -> tuple[str, int, tuple[str, ...]]:
    """What makes an endpoint the same server: a changed identity needs new connections."""
    return (spec.address, spec.port, spec.identities)


def _wire(spec: ClusterSpec) -> tuple[str, bool, str]:
    """How endpoints are spoken with: when it changes, no connection can stay."""
    return (spec.name, spec.mtls, spec.protocol)

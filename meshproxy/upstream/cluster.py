"""
A cluster: the servers behind a name, and which of them the next attempt goes to.

A cluster outlives snapshots.  When a new one arrives, endpoints that stayed keep their
connections and counters; those that left finish what they have and take nothing new.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.exchange import Endpoint as ExchangeEndpoint
from meshproxy.policies.load_balancing import LeastRequest

from . import pool


class Environment(pool.Environment, Protocol):
    """What a cluster needs of the process."""

    random: Callable[[], float]


class Endpoint:
    """
    One server.

    Attributes:
        active: Attempts under way, waiting for a connection included.
    """

    __slots__ = ("acquire", "active", "forget", "pool", "spec", "version", "weight")

    def __init__(self, cluster: ClusterSpec, spec: EndpointSpec, environment: Environment) -> None:
        self.spec = spec
        self.weight = spec.weight
        self.version = spec.version
        self.active = 0
        self.pool = pool.Pool(cluster, spec, environment)
        # The pool's own methods: delegates would be one call more per request.
        self.acquire = self.pool.acquire
        self.forget = self.pool.forget

    def __repr__(self) -> str:
        return f"<Endpoint {self.spec.address}:{self.spec.port} active {self.active}>"


class Cluster:
    """A named set of equal servers."""

    __slots__ = ("_balancer", "_environment", "endpoints", "service", "spec")

    def __init__(self, spec: ClusterSpec, environment: Environment) -> None:
        self.spec = spec
        self.service = spec.service or spec.name
        self.endpoints: Sequence[Endpoint] = ()
        self._environment = environment
        self._balancer: LeastRequest[Endpoint] = LeastRequest()

    def __repr__(self) -> str:
        return f"<Cluster {self.spec.name} {list(self.endpoints)}>"

    def pick(self, avoid: ExchangeEndpoint | None) -> Endpoint | None:
        """Choose the endpoint for an attempt; another one than `avoid` if there is one."""
        assert avoid is None or isinstance(avoid, Endpoint)
        return self._balancer.pick(self.endpoints, self._environment.random, avoid)

    def adopt(self, spec: ClusterSpec, endpoints: Sequence[EndpointSpec]) -> None:
        """Obey a new spec: what stayed keeps its connections and counters."""
        staying = {}
        if _wire(spec) == _wire(self.spec):
            staying = {_server(endpoint.spec): endpoint for endpoint in self.endpoints}
        self.spec = spec
        self.service = spec.service or spec.name
        adopted = []
        for wanted in endpoints:
            endpoint = staying.get(_server(wanted))
            if endpoint is None:
                endpoint = Endpoint(spec, wanted, self._environment)
            else:
                endpoint.spec = endpoint.pool.endpoint = wanted
                endpoint.weight, endpoint.version = wanted.weight, wanted.version
                endpoint.pool.cluster = spec
            adopted.append(endpoint)
        kept = {id(endpoint) for endpoint in adopted}
        for endpoint in self.endpoints:
            if id(endpoint) not in kept:
                endpoint.pool.retire()
        self.endpoints = tuple(adopted)

    def sweep(self, now: float) -> None:
        """Close connections that nobody has needed for long."""
        for endpoint in self.endpoints:
            endpoint.pool.sweep(now)

    def close(self) -> None:
        """End everything now."""
        for endpoint in self.endpoints:
            endpoint.pool.close()

    def retire(self) -> None:
        """The cluster is gone from the configuration: finish what runs, keep nothing."""
        for endpoint in self.endpoints:
            endpoint.pool.retire()

    def statistics(self) -> dict[str, Any]:
        """Return its state, for `/clusters`."""
        return {
            "name": self.spec.name,
            "service": self.service,
            "mtls": self.spec.mtls,
            "endpoints": [
                {
                    "address": f"{endpoint.spec.address}:{endpoint.spec.port}",
                    "workload": endpoint.spec.workload,
                    "version": endpoint.version,
                    "weight": endpoint.weight,
                    "identities": endpoint.spec.identities,
                    "active": endpoint.active,
                    **endpoint.pool.statistics(),
                }
                for endpoint in self.endpoints
            ],
        }


def _server(spec: EndpointSpec) -> tuple[str, int, tuple[str, ...]]:
    """What makes an endpoint the same server: a changed identity needs new connections."""
    return (spec.address, spec.port, spec.identities)


def _wire(spec: ClusterSpec) -> tuple[str, bool, str]:
    """How endpoints are spoken with: when it changes, no connection can stay."""
    return (spec.name, spec.mtls, spec.protocol)

"""Two sidecar processes that carry opaque TCP between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port


def tcp_route(name: str, **clusters: Sequence[str]) -> TcpRouteSpec:
    """Return a route with one rule for each cluster, by the server names that lead there."""
    return TcpRouteSpec(
        name=name,
        domains=("broker.default:5672",) if name != "inbound" else (),
        rules=tuple(
            TcpRuleSpec(
                name=f"to-{cluster}",
                server_names=tuple(names),
                backends=(TcpBackendSpec(cluster=cluster),),
            )
            for cluster, names in clusters.items()
        ),
    )


def virtual_host(name: str, cluster: str) -> VirtualHostSpec:
    """Return one that sends every request to a cluster."""
    route = RouteSpec(name="all", backends=(BackendSpec(cluster=cluster),))
    return VirtualHostSpec(name=name, domains=(f"{cluster}:80",), routes=(route,))


class TcpPair:
    """
    client → a (outbound, protocol tcp) → tunnel → b (inbound) → app.

    Attributes:
        door: Port at a that leads to the app.
        outbound: Port of the HTTP proxy form at a, where ``broker.default:5672`` is known.
        inbound: Port of b for peers.
        a, b: The processes.
        authority: Whom both believe.
    """

    def __init__(
        self,
        directory: Path,
        app: int,
        *,
        mtls: Any = "strict",
        protocol: Any = "tcp",
        endpoints: Sequence[int] = (),
        inbound: int = 0,
        routes: Mapping[str, Sequence[str]] | None = None,
        plain: Mapping[str, int] | None = None,
        limits: LimitsSpec | None = None,
    ) -> None:
        """
        Prepare both; `with` starts them.

        Args:
            directory: For their files.
            app: Port of the app behind b.
            mtls: Of b's listener.
            protocol: Of a's and b's listener.
            endpoints: Ports of b's kind for a to choose from, instead of b's own.
            inbound: B's port for peers; any free one by default.
            routes: Server names by the cluster that they lead to from a's door.
            plain: Ports of apps that a reaches without a sidecar, by cluster.
            limits: Of each endpoint that a calls.
        """
        self.authority = authority = TestAuthority()
        self.door, self.inbound, self.outbound = free_port(), inbound or free_port(), free_port()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        peers = tuple(
            EndpointSpec(address="127.0.0.1", port=port, identities=(spiffe("broker"),))
            for port in endpoints or (self.inbound,)
        )
        self.a_snapshot = Snapshot(
            trust=trust,
            clusters=(
                ClusterSpec(
                    name="broker",
                    service="default/broker",
                    mtls=True,
                    endpoint_limits=limits or LimitsSpec(),
                ),
                *(ClusterSpec(name=name) for name in plain or ()),
            ),
            endpoints=(
                EndpointsSpec(cluster="broker", endpoints=peers),
                *(
                    EndpointsSpec(
                        cluster=name, endpoints=(EndpointSpec(address="127.0.0.1", port=port),)
                    )
                    for name, port in (plain or {}).items()
                ),
            ),
            tcp_routes=(tcp_route("default/broker:5672", **(routes or {"broker": ()})),),
            virtual_hosts=(virtual_host("default/broker:5672", "broker"),),
            listeners=(
                ListenerSpec(
                    name="outbound", direction="outbound", address="127.0.0.1", port=self.outbound
                ),
                ListenerSpec(
                    name="door",
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.door,
                    protocol=protocol,
                    virtual_host="default/broker:5672" if protocol == "detect" else None,
                    tcp_route="default/broker:5672",
                ),
            ),
        )
        b = Snapshot(
            trust=trust,
            clusters=(ClusterSpec(name="app"),),
            endpoints=(
                EndpointsSpec(
                    cluster="app", endpoints=(EndpointSpec(address="127.0.0.1", port=app),)
                ),
            ),
            tcp_routes=(tcp_route("inbound", app=()),),
            virtual_hosts=(virtual_host("inbound", "app"),),
            listeners=(
                ListenerSpec(
                    name="inbound:5672",
                    direction="inbound",
                    address="127.0.0.1",
                    port=self.inbound,
                    protocol=protocol,
                    virtual_host="inbound" if protocol == "detect" else None,
                    tcp_route="inbound",
                    mtls=mtls,
                ),
            ),
        )
        self.a = Sidecar(
            directory,
            "storefront",
            self.a_snapshot,
            authority.issue(spiffe("storefront"), directory, "a"),
        )
        self.b = Sidecar(directory, "broker", b, authority.issue(spiffe("broker"), directory, "b"))

    def __enter__(self) -> Self:
        self.b.__enter__()
        try:
            self.a.__enter__()
        except BaseException:
            self.b.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.a.__exit__()
        self.b.__exit__()

"""Two sidecar processes that carry opaque TCP between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from meshproxy.contract.resources import (
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    Snapshot,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    TrustSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port


def tcp_route(name: str, **clusters: Sequence[str]) -> TcpRouteSpec:
    """Return a route with one rule for each cluster, by the server names that lead there."""
    return TcpRouteSpec(
        name=name,
        rules=tuple(
            TcpRuleSpec(
                name=f"to-{cluster}",
                server_names=tuple(names),
                backends=(TcpBackendSpec(cluster=cluster),),
            )
            for cluster, names in clusters.items()
        ),
    )


class TcpPair:
    """
    client → a (outbound, protocol tcp) → tunnel → b (inbound) → app.

    Attributes:
        door: Port at a that leads to the app.
        inbound: Port of b for peers.
        a, b: The processes.
    """

    def __init__(
        self,
        directory: Path,
        app: int,
        *,
        mtls: Any = "strict",
        protocol: Any = "tcp",
        endpoints: Sequence[int] = (),
    ) -> None:
        """
        Prepare both; `with` starts them.

        Args:
            directory: For their files.
            app: Port of the app behind b.
            mtls: Of b's listener.
            protocol: Of a's and b's listener.
            endpoints: Ports of b's kind for a to choose from, instead of b's own.
        """
        authority = TestAuthority()
        self.door, self.inbound = free_port(), free_port()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        peers = tuple(
            EndpointSpec(address="127.0.0.1", port=port, identities=(spiffe("broker"),))
            for port in endpoints or (self.inbound,)
        )
        self.a_snapshot = Snapshot(
            trust=trust,
            clusters=(ClusterSpec(name="broker", service="default/broker", mtls=True),),
            endpoints=(EndpointsSpec(cluster="broker", endpoints=peers),),
            tcp_routes=(tcp_route("default/broker:5672", broker=()),),
            listeners=(
                ListenerSpec(
                    name="door",
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.door,
                    protocol=protocol,
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
            listeners=(
                ListenerSpec(
                    name="inbound:5672",
                    direction="inbound",
                    address="127.0.0.1",
                    port=self.inbound,
                    protocol=protocol,
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

"""
Two sidecars in front of as many apps as a test module needs: a door at a, for each of them.

    client → door at a (outbound) → mutual TLS or plaintext → b (inbound) → app

`Pair` has one app and can do more with it; here the processes are started once for many apps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

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

Speaks = Literal["http1", "http2", "tcp", "detect"]


@dataclass(frozen=True)
class Service:
    """
    Attributes:
        port: Where the app listens.
        speaks: What the app is spoken to in; `detect` leaves it to the first bytes.
        plaintext: No TLS between the sidecars: then they speak what the app speaks.
    """

    name: str
    port: int
    speaks: Speaks = "http1"
    plaintext: bool = False


class Services:
    """
    Attributes:
        doors: By service, the port of a where its clients connect.
    """

    def __init__(
        self,
        directory: Path,
        services: Sequence[Service],
        names: Mapping[str, Mapping[str, str]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """
        Prepare both; `with` starts them.

        Args:
            directory: For their files.
            services: Each gets a door of its own.
            names: More doors, for TLS: by door, server names and the services that they mean.
            settings: More of the bootstrap of both.
        """
        names = names or {}
        authority = TestAuthority()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        self.doors = {name: free_port() for name in [s.name for s in services] + list(names)}
        inbound = {service.name: free_port() for service in services}
        a = Snapshot(
            trust=trust,
            clusters=tuple(
                ClusterSpec(
                    name=s.name,
                    service=f"default/{s.name}",
                    mtls=not s.plaintext,
                    protocol="http2" if s.plaintext and s.speaks == "http2" else "http1",
                )
                for s in services
            ),
            endpoints=tuple(
                _one_endpoint(s.name, inbound[s.name], () if s.plaintext else (spiffe("server"),))
                for s in services
            ),
            virtual_hosts=tuple(_one_route(s.name) for s in services),
            tcp_routes=(
                *(_one_tcp_route(s.name, {"": s.name}) for s in services),
                *(_one_tcp_route(name, by_name) for name, by_name in names.items()),
            ),
            listeners=(
                *(
                    ListenerSpec(
                        name=s.name,
                        direction="outbound",
                        address="127.0.0.1",
                        port=self.doors[s.name],
                        protocol=_protocol(s),
                        virtual_host=None if s.speaks == "tcp" else s.name,
                        tcp_route=s.name if s.speaks in ("tcp", "detect") else None,
                    )
                    for s in services
                ),
                *(
                    ListenerSpec(
                        name=name,
                        direction="outbound",
                        address="127.0.0.1",
                        port=self.doors[name],
                        protocol="tcp",
                        tcp_route=name,
                    )
                    for name in names
                ),
            ),
        )
        b = Snapshot(
            trust=trust,
            clusters=tuple(
                ClusterSpec(name=s.name, protocol="http2" if s.speaks == "http2" else "http1")
                for s in services
            ),
            endpoints=tuple(_one_endpoint(s.name, s.port, ()) for s in services),
            virtual_hosts=tuple(_one_route(s.name) for s in services),
            tcp_routes=tuple(_one_tcp_route(s.name, {"": s.name}) for s in services),
            listeners=tuple(
                ListenerSpec(
                    name=s.name,
                    direction="inbound",
                    address="127.0.0.1",
                    port=inbound[s.name],
                    protocol=_protocol(s),
                    virtual_host=None if s.speaks == "tcp" else s.name,
                    tcp_route=s.name if s.speaks in ("tcp", "detect") else None,
                    mtls="disabled" if s.plaintext else "strict",
                )
                for s in services
            ),
        )
        self.a = Sidecar(
            directory, "client", a, authority.issue(spiffe("client"), directory, "client"), settings
        )
        self.b = Sidecar(
            directory, "server", b, authority.issue(spiffe("server"), directory, "server"), settings
        )

    def url(self, name: str, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.doors[name]}{path}"

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


def _one_endpoint(cluster: str, port: int, identities: tuple[str, ...]) -> EndpointsSpec:
    endpoint = EndpointSpec(address="127.0.0.1", port=port, identities=identities)
    return EndpointsSpec(cluster=cluster, endpoints=(endpoint,))


def _one_route(name: str) -> VirtualHostSpec:
    route = RouteSpec(name=name, backends=(BackendSpec(cluster=name),))
    return VirtualHostSpec(name=name, domains=(name,), routes=(route,))


def _one_tcp_route(name: str, by_name: Mapping[str, str]) -> TcpRouteSpec:
    """Return a route with a rule for each server name; the empty one takes every connection."""
    return TcpRouteSpec(
        name=name,
        rules=tuple(
            TcpRuleSpec(
                name=cluster,
                server_names=(server_name,) if server_name else (),
                backends=(TcpBackendSpec(cluster=cluster),),
            )
            for server_name, cluster in by_name.items()
        ),
    )


def _protocol(service: Service) -> Literal["detect", "tcp"]:
    return "tcp" if service.speaks == "tcp" else "detect"

"""
Two sidecars in front of as many apps as a test module needs: a door at a, for each of them.

    client → door at a (outbound) → mutual TLS or plaintext → b (inbound) → app

`Pair` has one app and can do more with it; here the processes are started once for many apps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port

Speaks = Literal["http1", "http2"]


@dataclass(frozen=True)
class Service:
    """
    Attributes:
        port: Where the app listens.
        speaks: What the app is spoken to in.
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

    def __init__(self, directory: Path, services: Sequence[Service]) -> None:
        authority = TestAuthority()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        self.doors = {service.name: free_port() for service in services}
        inbound = {service.name: free_port() for service in services}
        a = Snapshot(
            trust=trust,
            clusters=tuple(
                ClusterSpec(
                    name=s.name,
                    service=f"default/{s.name}",
                    mtls=not s.plaintext,
                    protocol=s.speaks if s.plaintext else "http1",
                )
                for s in services
            ),
            endpoints=tuple(
                _one_endpoint(s.name, inbound[s.name], () if s.plaintext else (spiffe("server"),))
                for s in services
            ),
            virtual_hosts=tuple(_one_route(s.name) for s in services),
            listeners=tuple(
                ListenerSpec(
                    name=s.name,
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.doors[s.name],
                    virtual_host=s.name,
                )
                for s in services
            ),
        )
        b = Snapshot(
            trust=trust,
            clusters=tuple(ClusterSpec(name=s.name, protocol=s.speaks) for s in services),
            endpoints=tuple(_one_endpoint(s.name, s.port, ()) for s in services),
            virtual_hosts=tuple(_one_route(s.name) for s in services),
            listeners=tuple(
                ListenerSpec(
                    name=s.name,
                    direction="inbound",
                    address="127.0.0.1",
                    port=inbound[s.name],
                    virtual_host=s.name,
                    mtls="disabled" if s.plaintext else "strict",
                )
                for s in services
            ),
        )
        self.a = Sidecar(
            directory, "client", a, authority.issue(spiffe("client"), directory, "client")
        )
        self.b = Sidecar(
            directory, "server", b, authority.issue(spiffe("server"), directory, "server")
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

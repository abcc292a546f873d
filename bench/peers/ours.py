"""
meshproxy, as users run it: `python -m meshproxy run` on a static bootstrap.

`Ours` has all policies armed, `OursBare` none but what is on by default.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import meshproxy
from bench import armed
from bench.process import Process
from bench.site import ADDRESSES, TRUST_DOMAIN, A, B, Service, Site
from meshproxy import interpreter
from meshproxy.contract import wire
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
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
from meshproxy.identity.tls import ALPN_HTTP2

from . import Side


class Ours:
    name = "ours"
    pair = True
    single = True
    alpn = ALPN_HTTP2
    everything: ClassVar[bool] = True  # armed

    def version(self) -> str:
        return meshproxy.__version__

    def lacks(self, service: Service) -> str | None:  # noqa: ARG002
        return None

    def start(
        self, site: Site, side: Side, services: Sequence[Service], folder: Path, name: str
    ) -> Process:
        identity = site.b if side == "b" else site.a
        (folder / f"{name}-snapshot.json").write_bytes(
            wire.encode(config(side, services, site.root_pem, everything=self.everything))
        )
        admin = site.ports.free()
        bootstrap = folder / f"{name}.json"
        bootstrap.write_text(
            json.dumps(
                {
                    "workload": f"bench/{name}",
                    "identity": identity.name,
                    "state": f"{name}-state",
                    "admin": {"address": "127.0.0.1", "port": admin},
                    "static": {
                        "snapshot": f"{name}-snapshot.json",
                        "certificate": str(identity.certificate),
                        "key": str(identity.key),
                    },
                },
                indent=2,
            )
        )
        process = site.python(
            name, folder, "meshproxy", "run", "--bootstrap", str(bootstrap),
            given=interpreter.environment(os.environ),
        )  # fmt: skip
        process.admin = admin
        return process


class OursBare(Ours):
    name = "ours-bare"
    single = False
    everything = False


def config(
    side: Side, services: Sequence[Service], root: str, *, everything: bool = True
) -> Snapshot:
    """Return the snapshot of one side, with all policies or with none."""
    trust = (TrustSpec(trust_domain=TRUST_DOMAIN, roots=(root,)),)
    if side == "b":
        return _inbound(services, trust, everything=everything)
    return _outbound(services, trust, mtls=side == "a", everything=everything)


def _outbound(
    services: Sequence[Service], trust: tuple[TrustSpec, ...], *, mtls: bool, everything: bool
) -> Snapshot:
    policies: dict[str, Any] = armed.A_CLUSTER if everything else {}
    return Snapshot(
        trust=trust,
        listeners=tuple(
            ListenerSpec(
                name=service.name,
                direction="outbound",
                address="127.0.0.1",
                port=service.entry,
                protocol="http" if service.http else "tcp",
                tcp_route=None if service.http else service.name,
            )
            for service in services
        ),
        virtual_hosts=tuple(
            VirtualHostSpec(
                name=host,
                domains=(f"{host}:80",),
                routes=tuple(_routes(service, host, everything=everything)),
            )
            for service in services
            if service.http
            for host in service.hosts()
        ),
        tcp_routes=_tcp_routes(services),
        clusters=tuple(
            ClusterSpec(
                name=service.name,
                service=f"bench/{service.name}",
                mtls=mtls,
                protocol=_spoken(service),
                **policies,
            )
            for service in services
        ),
        endpoints=tuple(
            EndpointsSpec(
                cluster=service.name,
                endpoints=tuple(
                    EndpointSpec(
                        address=address,
                        port=service.between if mtls else service.app,
                        identities=(B,) if mtls else (),
                        workload=f"bench/{service.name}-{number}",
                    )
                    for number, address in enumerate(ADDRESSES)
                ),
            )
            for service in services
        ),
    )


def _routes(service: Service, host: str, *, everything: bool) -> list[RouteSpec]:
    policies = armed.a_route(service.name) if everything else {}
    return [
        RouteSpec(
            name=f"HTTPRoute/bench/{host}/{number}",
            match=MatchSpec(path=PathMatchSpec(type="prefix", value=prefix)),
            backends=(BackendSpec(cluster=service.name),),
            **policies,
        )
        for number, prefix in enumerate(service.prefixes())
    ]


def _inbound(
    services: Sequence[Service], trust: tuple[TrustSpec, ...], *, everything: bool
) -> Snapshot:
    policies: dict[str, Any] = armed.B_ROUTE if everything else {}
    of_host: dict[str, Any] = armed.b_host(A) if everything else {}
    of_cluster: dict[str, Any] = armed.B_CLUSTER if everything else {}
    return Snapshot(
        trust=trust,
        listeners=tuple(
            ListenerSpec(
                name=f"{service.name}-{number}",
                direction="inbound",
                address=address,
                port=service.between,
                protocol="http" if service.http else "tcp",
                virtual_host=service.name if service.http else None,
                tcp_route=None if service.http else service.name,
                mtls="strict",
            )
            for service in services
            for number, address in enumerate(ADDRESSES)
        ),
        virtual_hosts=tuple(
            VirtualHostSpec(
                name=service.name,
                # One virtual host at most may answer for any authority; listeners name theirs.
                domains=(f"{service.name}.bench:80",),
                routes=(
                    RouteSpec(
                        name="inbound",
                        backends=(BackendSpec(cluster=service.name),),
                        **policies,
                    ),
                ),
                **of_host,
            )
            for service in services
            if service.http
        ),
        tcp_routes=_tcp_routes(services),
        clusters=tuple(
            ClusterSpec(
                name=service.name,
                service=f"bench/{service.name}",
                protocol=_spoken(service),
                **of_cluster,
            )
            for service in services
        ),
        endpoints=tuple(
            EndpointsSpec(
                cluster=service.name,
                endpoints=(EndpointSpec(address=ADDRESSES[0], port=service.app),),
            )
            for service in services
        ),
    )


def _spoken(service: Service) -> Literal["http1", "http2"]:
    return "http2" if service.protocol == "http2" else "http1"


def _tcp_routes(services: Sequence[Service]) -> tuple[TcpRouteSpec, ...]:
    return tuple(
        TcpRouteSpec(
            name=service.name,
            rules=(
                TcpRuleSpec(
                    name=f"TCPRoute/bench/{service.name}/0",
                    backends=(TcpBackendSpec(cluster=service.name),),
                ),
            ),
        )
        for service in services
        if not service.http
    )

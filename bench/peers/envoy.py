"""
Envoy, as a sidecar pair of a mesh would have it.

`--concurrency 1`: one worker.  Statistics are on, tracing and access log are off, no TLS session is
resumed.  The configuration is JSON, which Envoy reads as well as YAML.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.process import Process
from bench.programs import find, version
from bench.site import ADDRESSES, A, B, Identity, Service, Site

from . import Side

Json = dict[str, Any]

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions."


class Envoy:
    name = "envoy"
    pair = True
    single = False
    alpn = "h2"

    def __init__(self, chosen: Path | None = None) -> None:
        self._chosen = chosen

    def version(self) -> str:
        return version(find("envoy", self._chosen), "envoy")

    def lacks(self, service: Service) -> str | None:  # noqa: ARG002
        return None

    def start(
        self, site: Site, side: Side, services: Sequence[Service], folder: Path, name: str
    ) -> Process:
        path = folder / f"{name}.json"
        admin = site.ports.free()
        identity = site.b if side == "b" else site.a
        path.write_text(json.dumps(self.config(side, services, identity, site.root, admin)))
        options = ["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]
        command = [find("envoy", self._chosen), "-c", str(path), *options]
        return site.processes.start(name, command, folder)

    def config(
        self, side: Side, services: Sequence[Service], identity: Identity, root: Path, admin: int
    ) -> Json:
        """Return the bootstrap of one side."""
        return {
            "admin": {"address": _address("127.0.0.1", admin)},
            "static_resources": {
                "listeners": (
                    [
                        _inbound(service, number, address, identity, root)
                        for service in services
                        for number, address in enumerate(ADDRESSES)
                    ]
                    if side == "b"
                    else [_outbound(service) for service in services]
                ),
                "clusters": [
                    _app(service) if side == "b" else _mesh(service, identity, root)
                    for service in services
                ],
            },
        }


# Listeners ----------------------------------------------------------------------------------------


def _outbound(service: Service) -> Json:
    return {
        "name": service.name,
        "address": _address("127.0.0.1", service.entry),
        "filter_chains": [{"filters": [_filter(service, _routes(service))]}],
    }


def _inbound(service: Service, number: int, address: str, identity: Identity, root: Path) -> Json:
    routes = [
        {
            "name": service.name,
            "domains": ["*"],
            "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": service.name, "timeout": "15s"}}
            ],
        }
    ]
    return {
        "name": f"{service.name}-{number}",
        "address": _address(address, service.between),
        "filter_chains": [
            {
                "transport_socket": _tls(
                    "DownstreamTlsContext",
                    identity,
                    root,
                    A,
                    alpn=["h2"] if service.http else [],
                    require_client_certificate=True,
                    disable_stateless_session_resumption=True,
                    disable_stateful_session_resumption=True,
                ),
                "filters": [_filter(service, routes, inbound=True)],
            }
        ],
    }


def _filter(service: Service, virtual_hosts: list[Json], *, inbound: bool = False) -> Json:
    if not service.http:
        return typed(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=service.name,
            cluster=service.name,
        )
    identified: Json = {}
    filters = [typed("envoy.filters.http.router", "filters.http.router.v3.Router")]
    if inbound:
        identified = {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": True},
        }
        filters.insert(0, _rbac())
    return typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=service.name,
        codec_type="AUTO",
        route_config={"name": service.name, "virtual_hosts": virtual_hosts},
        http_filters=filters,
        http2_protocol_options={"max_concurrent_streams": 1000},
        generate_request_id=False,  # nor does meshproxy make one
        **identified,
    )


def _rbac() -> Json:
    return typed(
        "envoy.filters.http.rbac",
        "filters.http.rbac.v3.RBAC",
        rules={
            "action": "ALLOW",
            "policies": {
                "a": {
                    "permissions": [{"url_path": {"path": {"prefix": "/"}}}],
                    "principals": [{"authenticated": {"principal_name": {"exact": A}}}],
                }
            },
        },
    )


def _routes(service: Service) -> list[Json]:
    return [
        {
            "name": host,
            "domains": [host, f"{host}:80"],
            "routes": [
                {
                    "match": {"path_separated_prefix": prefix},
                    "route": {
                        "cluster": service.name,
                        "timeout": "15s",
                        "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2},
                    },
                }
                for prefix in service.prefixes()
            ],
        }
        for host in service.hosts()
    ]


# Clusters -----------------------------------------------------------------------------------------


def _mesh(service: Service, identity: Identity, root: Path) -> Json:
    cluster = _cluster(service, [(address, service.between) for address in ADDRESSES])
    cluster["transport_socket"] = _tls(
        "UpstreamTlsContext",
        identity,
        root,
        B,
        alpn=["h2"] if service.http else [],
        max_session_keys=0,
    )
    if service.http:
        cluster |= _speaking_http2()
    return cluster


def _app(service: Service) -> Json:
    cluster = _cluster(service, [(ADDRESSES[0], service.app)])
    return cluster | (_speaking_http2() if service.protocol == "http2" else {})


def _cluster(service: Service, endpoints: list[tuple[str, int]]) -> Json:
    return {
        "name": service.name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1024,
                    "max_pending_requests": 1024,
                    "max_requests": 4096,
                    "max_retries": 3,
                }
            ]
        },
        "outlier_detection": {"consecutive_5xx": 5, "interval": "10s", "base_ejection_time": "30s"},
        "load_assignment": {
            "cluster_name": service.name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": _address(*endpoint)}} for endpoint in endpoints
                    ]
                }
            ],
        },
    }


def _speaking_http2() -> Json:
    name = "upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": _EXTENSIONS + name, "explicit_http_config": {"http2_protocol_options": {}}}
    return {"typed_extension_protocol_options": {f"envoy.extensions.{name}": options}}


# Pieces -------------------------------------------------------------------------------------------


def _tls(
    kind: str, identity: Identity, root: Path, peer: str, *, alpn: list[str], **more: object
) -> Json:
    return typed(
        "envoy.transport_sockets.tls",
        f"transport_sockets.tls.v3.{kind}",
        common_tls_context={
            "alpn_protocols": alpn,
            # Clients would stop at 1.2.
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(identity.certificate)},
                    "private_key": {"filename": str(identity.key)},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(root)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
            },
        },
        **more,
    )


def typed(name: str, kind: str, **fields: object) -> Json:
    return {"name": name, "typed_config": {"@type": _EXTENSIONS + kind, **fields}}


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}

"""
HAProxy, as a pair and as a single hop: one thread, its own exporter for metrics.

It has no check of a SPIFFE ID (nothing in 2.6 reads a URI out of a certificate): whoever the root
vouches for is believed.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.process import Process
from bench.programs import find, version
from bench.site import ADDRESSES, Identity, Service, Site

from . import Side

_GLOBAL = """\
global
    nbthread 1
    maxconn 8000
    ssl-default-bind-options no-tls-tickets ssl-min-ver TLSv1.3
    ssl-default-server-options no-tls-tickets ssl-min-ver TLSv1.3
    tune.ssl.cachesize 0
    tune.h2.max-concurrent-streams 1000

defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 15s
    timeout http-keep-alive 600s
    retries 2
    retry-on conn-failure empty-response response-timeout 500 502 503 504
    option redispatch
    http-reuse always

frontend metrics
    bind 127.0.0.1:{metrics}
    http-request use-service prometheus-exporter
"""

_FORWARDED = '"Subject=%{+Q}[ssl_c_s_dn];Issuer=%{+Q}[ssl_c_i_dn]"'


class HAProxy:
    name = "haproxy"
    pair = True
    single = True
    alpn = "h2"

    def version(self) -> str:
        return version(find("haproxy"), "haproxy")

    def lacks(self, service: Service) -> str | None:  # noqa: ARG002
        return None

    def start(
        self, site: Site, side: Side, services: Sequence[Service], folder: Path, name: str
    ) -> Process:
        identity = site.b if side == "b" else site.a
        for service in services:
            routes_file(folder, service).write_text(routes(service))
        path = folder / f"{name}.cfg"
        path.write_text(config(side, services, identity, site.root, folder, site.ports.free()))
        return site.processes.start(name, [find("haproxy"), "-db", "-f", str(path)], folder)


def config(
    side: Side,
    services: Sequence[Service],
    identity: Identity,
    root: Path,
    folder: Path,
    metrics: int,
) -> str:
    """Return the configuration of one side."""
    sections = [_GLOBAL.format(metrics=metrics)]
    for service in services:
        if side == "b":
            sections.append(_inbound(service, identity, root))
        else:
            sections.append(_outbound(service, folder))
            sections.append(_upstream(service, side, identity, root))
    return "\n".join(sections)


def routes_file(folder: Path, service: Service) -> Path:
    return folder / f"{service.name}.map"


def routes(service: Service) -> str:
    """50 routes: host and prefix, found in a tree."""
    return "".join(
        f"{host}{prefix}/ {service.name}\n"
        for host in service.hosts()
        for prefix in service.prefixes()
    )


def _outbound(service: Service, folder: Path) -> str:
    bind = f"frontend {service.name}-in\n    bind 127.0.0.1:{service.entry}"
    if not service.http:
        return f"{bind}\n    mode tcp\n    timeout client 1h\n    default_backend {service.name}\n"
    spoken = " proto h2" if service.protocol == "http2" else ""
    return f"{bind}{spoken}\n    use_backend %[base,map_beg({routes_file(folder, service)})]\n"


def _upstream(service: Service, side: Side, identity: Identity, root: Path) -> str:
    lines = [f"backend {service.name}"]
    lines.append("    balance leastconn")
    tls = ""
    if not service.http:
        lines.append("    mode tcp\n    timeout server 1h\n    retry-on conn-failure")
    if side == "a":
        tls = f" ssl crt {identity.both} ca-file {root} verify required no-ssl-reuse"
        tls += " alpn h2" if service.http else ""
    for number, address in enumerate(ADDRESSES):
        port = service.between if side == "a" else service.app
        # Errors seen in passing take a server out, checks bring it back.
        watched = " check inter 10s observe layer7 error-limit 50 on-error mark-down"
        lines.append(
            f"    server s{number} {address}:{port}{tls} maxconn 1024"
            + (watched if service.http else "")
        )
    return "\n".join(lines) + "\n"


def _inbound(service: Service, identity: Identity, root: Path) -> str:
    spoken = " alpn h2" if service.http else ""
    tls = f" ssl crt {identity.both} ca-file {root} verify required{spoken}"
    lines = [f"frontend {service.name}-in"]
    lines += [f"    bind {address}:{service.between}{tls}" for address in ADDRESSES]
    if service.http:
        lines += [
            # Its subject is empty, as that of an SVID is.
            f"    http-request set-header X-Forwarded-Client-Cert {_FORWARDED}",
            "    http-request deny unless { ssl_c_used } { path_beg / }",
        ]
    else:
        lines += ["    mode tcp", "    timeout client 1h"]
    lines += [f"    default_backend {service.name}", "", f"backend {service.name}"]
    if not service.http:
        lines += ["    mode tcp", "    timeout server 1h", "    retry-on conn-failure"]
    proto = " proto h2" if service.protocol == "http2" else ""
    lines.append(f"    server app {ADDRESSES[0]}:{service.app}{proto} maxconn 1024")
    return "\n".join(lines) + "\n"

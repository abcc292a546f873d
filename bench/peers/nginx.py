"""nginx, as a single hop: one worker, a pool of connections to three endpoints."""

from collections.abc import Sequence
from pathlib import Path

from bench.process import Process
from bench.programs import find, version
from bench.site import ADDRESSES, Service, Site, nginx_frame

from . import Side


class Nginx:
    name = "nginx"
    pair = False
    single = True
    alpn = "h2"

    def version(self) -> str:
        return version(find("nginx"), "nginx")

    def lacks(self, service: Service) -> str | None:
        return None if service.protocol == "http1" else "measured with HTTP/1.1 only"

    def start(
        self,
        site: Site,
        side: Side,  # noqa: ARG002
        services: Sequence[Service],
        folder: Path,
        name: str,
    ) -> Process:
        (folder / "nginx.conf").write_text(config(services))
        command = [find("nginx"), "-p", str(folder), "-c", "nginx.conf"]
        return site.processes.start(name, command, folder)


def config(services: Sequence[Service]) -> str:
    """Return the configuration."""
    return nginx_frame("".join(_service(service) for service in services))


def _service(service: Service) -> str:
    servers = "".join(f"    server {address}:{service.app};\n" for address in ADDRESSES)
    locations = "".join(
        f"    location {prefix}/ {{ proxy_pass http://{service.name}; }}\n"
        for prefix in service.prefixes()
    )
    return (
        f"  upstream {service.name} {{\n    least_conn;\n{servers}    keepalive 64;\n"
        "    keepalive_requests 1000000000;\n  }\n"
        '  proxy_http_version 1.1;\n  proxy_set_header Connection "";\n'
        "  proxy_set_header Host $http_host;\n  proxy_read_timeout 15s;\n"
        "  proxy_next_upstream error timeout;\n"
    ) + "".join(
        f"  server {{\n    listen 127.0.0.1:{service.entry};\n    server_name {host};\n"
        f"{locations}  }}\n"
        for host in service.hosts()
    )

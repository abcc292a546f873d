"""nghttpx, as a single hop: one worker."""

from collections.abc import Sequence
from pathlib import Path

from bench.process import Process
from bench.programs import find, version
from bench.site import ADDRESSES, Service, Site

from . import Side


class Nghttpx:
    name = "nghttpx"
    pair = False
    single = True
    alpn = "h2"

    def version(self) -> str:
        return version(find("nghttpx"), "nghttpx")

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
        path = folder / f"{name}.conf"
        path.write_text(config(services))
        return site.processes.start(name, [find("nghttpx"), f"--conf={path}"], folder)


def config(services: Sequence[Service]) -> str:
    """Return the configuration; a pattern is host and path, and the last backend is for the rest."""
    lines = ["workers=1", "errorlog-file=/dev/stderr", "no-via=yes", "backend-read-timeout=15s"]
    lines += ["frontend-keep-alive-timeout=600s", "backend-keep-alive-timeout=600s"]
    for service in services:
        lines.append(f"frontend=127.0.0.1,{service.entry};no-tls")
        patterns = ":".join(
            f"{host}{prefix}/" for host in service.hosts() for prefix in service.prefixes()
        )
        lines += [f"backend={address},{service.app};{patterns}" for address in ADDRESSES]
        lines.append(f"backend={ADDRESSES[0]},{service.app}")
    return "\n".join(lines) + "\n"

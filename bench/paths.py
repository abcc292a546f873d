"""
The paths that are compared: direct, through one sidecar, through two with mutual TLS.

Sidecars run as users run them (`python -m meshproxy run`), from static bootstraps: no control
plane takes part.  50 routes, the one in use in their middle; three endpoints; with mutual TLS both
sides check the other's SPIFFE ID.

    direct   load ─────────────────────────────→ origin
    one      load → A (outbound) ──────────────→ origin
    mtls     load → A (outbound) ═ mTLS ═ B (inbound) → origin
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

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
    TrustSpec,
    VirtualHostSpec,
)

from .authority import Authority
from .upstream import ADDRESSES

ROOT = Path(__file__).parent.parent
DIRECT, ONE, MTLS = "direct", "one sidecar", "two, mTLS"
HOST = "catalog.bench:80"
ROUTES = 50
PREFIX = f"/team-{ROUTES // 2}"
TRUST_DOMAIN = "bench.mesh"
A, B = (f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{name}" for name in "ab")


@dataclass
class Course:
    """One way from the load to the origin, with the processes whose cost is its cost."""

    name: str
    port: int
    sidecars: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def url(self, size: int) -> str:
        return f"http://127.0.0.1:{self.port}{PREFIX}/{size}"


def free_port(addresses: tuple[str, ...] = ("127.0.0.1",)) -> int:
    """Return a port that is free on all `addresses` at this moment."""
    while True:
        with socket.create_server((addresses[0], 0)) as first:
            port: int = first.getsockname()[1]
            try:
                for address in addresses[1:]:
                    socket.create_server((address, port)).close()
            except OSError:
                continue
            return port


# Snapshots ----------------------------------------------------------------------------------------


def outbound(
    port: int, upstream_port: int, roots: tuple[TrustSpec, ...], *, mtls: bool
) -> Snapshot:
    """What A knows: one port that leads to the service, 50 routes, three endpoints."""
    routes = tuple(
        RouteSpec(
            name=f"HTTPRoute/bench/catalog/{number}",
            match=MatchSpec(path=PathMatchSpec(type="prefix", value=f"/team-{number}")),
            backends=(BackendSpec(cluster="catalog"),),
        )
        for number in range(ROUTES)
    )
    return Snapshot(
        listeners=(
            ListenerSpec(
                name="catalog",
                direction="outbound",
                address="127.0.0.1",
                port=port,
                virtual_host="catalog",
            ),
        ),
        virtual_hosts=(VirtualHostSpec(name="catalog", domains=(HOST,), routes=routes),),
        clusters=(ClusterSpec(name="catalog", service="bench/catalog", mtls=mtls),),
        endpoints=(
            EndpointsSpec(
                cluster="catalog",
                endpoints=tuple(
                    EndpointSpec(
                        address=address,
                        port=upstream_port,
                        identities=(B,) if mtls else (),
                        workload=f"bench/b-{number}",
                    )
                    for number, address in enumerate(ADDRESSES)
                ),
            ),
        ),
        trust=roots,
    )


def inbound(port: int, app_port: int, roots: tuple[TrustSpec, ...]) -> Snapshot:
    """What B knows: strict mutual TLS on three addresses, all to the app beside it."""
    return Snapshot(
        listeners=tuple(
            ListenerSpec(
                name=f"app-{number}",
                direction="inbound",
                address=address,
                port=port,
                virtual_host="app",
                mtls="strict",
            )
            for number, address in enumerate(ADDRESSES)
        ),
        virtual_hosts=(
            VirtualHostSpec(
                name="app",
                domains=("*",),
                routes=(RouteSpec(name="inbound", backends=(BackendSpec(cluster="app"),)),),
            ),
        ),
        clusters=(ClusterSpec(name="app", service="bench/app"),),
        endpoints=(
            EndpointsSpec(
                cluster="app", endpoints=(EndpointSpec(address="127.0.0.1", port=app_port),)
            ),
        ),
        trust=roots,
    )


# Processes ----------------------------------------------------------------------------------------


class Bench:
    """Everything that runs; leaving the `with` block ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.trust = (TrustSpec(trust_domain=TRUST_DOMAIN, roots=(self.authority.root_pem(),)),)
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def courses(self) -> list[Course]:
        """Start the origin and the sidecars; return the ways to compare, simplest first."""
        origin = free_port(ADDRESSES)
        self._start("origin", ["bench.upstream", str(origin)])
        _until("the origin listens", lambda: _accepts(origin), self.processes[-1])
        one, two, between = free_port(), free_port(), free_port(ADDRESSES)
        plain = self.sidecar("one-a", A, outbound(one, origin, self.trust, mtls=False))
        sender = self.sidecar("mtls-a", A, outbound(two, between, self.trust, mtls=True))
        receiver = self.sidecar("mtls-b", B, inbound(between, origin, self.trust))
        return [
            Course(DIRECT, origin),
            Course(ONE, one, [plain]),
            Course(MTLS, two, [sender, receiver]),
        ]

    def sidecar(self, name: str, identity: str, snapshot: Snapshot) -> subprocess.Popen[bytes]:
        """Start a sidecar on a snapshot and wait until it is ready."""
        folder = self.folder / name
        (folder / "state").mkdir(parents=True, mode=0o700)
        certificate, key = self.authority.issue(identity, folder)
        (folder / "snapshot.json").write_bytes(wire.encode(snapshot))
        admin = free_port()
        bootstrap = {
            "workload": f"bench/{name}",
            "identity": identity,
            "state": str(folder / "state"),
            "admin": {"address": "127.0.0.1", "port": admin},
            "static": {
                "snapshot": str(folder / "snapshot.json"),
                "certificate": str(certificate),
                "key": str(key),
            },
        }
        (folder / "bootstrap.json").write_text(json.dumps(bootstrap, indent=2))
        process = self._start(
            name, ["meshproxy", "run", "--bootstrap", str(folder / "bootstrap.json")]
        )
        _until(f"sidecar {name} is ready", lambda: _ready(admin), process, self._log(name))
        return process

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the bench, which then ends its processes in order.
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _until(
    what: str,
    holds: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path | None = None,
) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-2000:] if log else ""
            raise RuntimeError(f"waited in vain until {what} (exit {process.poll()}):\n{said}")
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _ready(admin: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=1)
    try:
        connection.request("GET", "/healthz/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()

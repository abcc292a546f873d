"""Two sidecar processes with static configurations and mutual TLS between them."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from meshproxy.contract import wire
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
from tests.helpers.ports import free_port

DOMAIN = "test.mesh"
STARTING = 60.0


def spiffe(account: str) -> str:
    return f"spiffe://{DOMAIN}/ns/default/sa/{account}"


class Sidecar:
    """
    One sidecar process; `with` starts it and ends it.

    Attributes:
        settings: More of its bootstrap; what is changed counts for the next process.
        arguments: More for its command line; likewise.
        process: The one that was started last.
        relieved: Those that it, or others before it, took over from.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        snapshot: Snapshot,
        certificate: tuple[Path, Path] | None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.directory = directory / name
        self.directory.mkdir(mode=0o700)
        self.admin = free_port()
        self._snapshot = self.directory / "snapshot.json"
        self._snapshot.write_bytes(wire.encode(snapshot))
        static: dict[str, str] = {"snapshot": str(self._snapshot)}
        if certificate is not None:
            static |= {"certificate": str(certificate[0]), "key": str(certificate[1])}
        self._bootstrap = self.directory / "bootstrap.json"
        self.settings = {
            "workload": f"default/{name}",
            "identity": spiffe(name),
            "state": str(self.directory / "state"),
            "admin": {"address": "127.0.0.1", "port": self.admin},
            "drain_seconds": 5,
            "static": static,
            **(settings or {}),
        }
        self.arguments: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes]
        self.relieved: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.process = self.launch()
        until_ready(self.admin, self.process, self.log)

    def launch(
        self,
        *arguments: str,
        program: Sequence[str] = ("-m", "meshproxy"),
        before: Sequence[str] = (),
        **how: Any,
    ) -> "subprocess.Popen[bytes]":
        """
        Start a process, and wait for nothing.

        Args:
            before: A command that starts it.
            how: More for `Popen`.
        """
        self._bootstrap.write_text(json.dumps(self.settings))
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [
                    *(*before, sys.executable, *program, "run"),
                    *("--bootstrap", str(self._bootstrap), *self.arguments, *arguments),
                ],
                **{"stderr": log, **how},
            )

    def restart(self) -> None:
        """Start another process beside the one that serves, and wait until it has taken over."""
        old, self.process = self.process, self.launch()
        self.relieved.append(old)
        took_over = f"took over from process {old.pid}\n"
        deadline = time.monotonic() + STARTING
        while took_over not in self.log():
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode}:\n{self.log()}"
            )
            assert time.monotonic() < deadline, f"did not take over:\n{self.log()}"
            time.sleep(0.02)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def get(self, path: str) -> Any:
        """Return an admin page's JSON."""
        return json.loads(get(self.admin, path)[1])

    def metrics(self) -> str:
        return get(self.admin, "/metrics")[1].decode()

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096

    def stop(self) -> int:
        """End it as an operator would and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(15)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (self.process, *self.relieved):
            if process.poll() is None:
                process.kill()
            process.wait(15)


def until_ready(admin: int, process: "subprocess.Popen[bytes]", log: Any) -> None:
    """Wait until the process says that it is ready; fail with its log when it ends before that."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended with {process.returncode}:\n{log()}"
        try:
            if get(admin, "/healthz/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"not ready in {STARTING} s:\n{log()}")


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Pair:
    """
    client → a (outbound, plaintext) → mutual TLS → b (inbound, STRICT) → origin.

    Attributes:
        outbound: Port of the HTTP proxy form at a.
        door: Port at a that leads to the service, whatever the authority.
        inbound: Port of b for peers.
        a_snapshot: What a obeys; for another process in its place.
    """

    def __init__(
        self,
        directory: Path,
        origin: int,
        *,
        server: str = "catalog",
        expected: Sequence[str] = (),
        server_authority: TestAuthority | None = None,
        mtls: Any = "strict",
        app_protocol: Any = "http1",
        settings: dict[str, Any] | None = None,
        between: int | None = None,
        change_a: Callable[[Snapshot], Snapshot] | None = None,
        change_b: Callable[[Snapshot], Snapshot] | None = None,
    ) -> None:
        """
        Prepare both; `with` starts them.

        Args:
            change_a, change_b: What the test wants otherwise in their configurations.
            between: Where a finds b, if not at b itself: somebody who passes it all on.
        """
        authority = TestAuthority()
        self.authority = authority
        self.outbound, self.door, self.inbound = free_port(), free_port(), free_port()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        identities = tuple(expected or (spiffe(server),))
        a = Snapshot(
            trust=trust,
            clusters=(ClusterSpec(name="catalog", service="default/catalog", mtls=True),),
            endpoints=(
                EndpointsSpec(
                    cluster="catalog",
                    endpoints=(
                        EndpointSpec(
                            address="127.0.0.1",
                            port=between or self.inbound,
                            identities=identities,
                            version="v1",
                        ),
                    ),
                ),
            ),
            virtual_hosts=(
                VirtualHostSpec(
                    name="default/catalog:80",
                    domains=("catalog:80", "catalog.default:80"),
                    routes=(RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),)),),
                ),
            ),
            listeners=(
                ListenerSpec(
                    name="outbound", direction="outbound", address="127.0.0.1", port=self.outbound
                ),
                ListenerSpec(
                    name="door",
                    direction="outbound",
                    address="127.0.0.1",
                    port=self.door,
                    virtual_host="default/catalog:80",
                ),
            ),
        )
        b = Snapshot(
            trust=trust,
            clusters=(ClusterSpec(name="app", protocol=app_protocol),),
            endpoints=(
                EndpointsSpec(
                    cluster="app", endpoints=(EndpointSpec(address="127.0.0.1", port=origin),)
                ),
            ),
            virtual_hosts=(
                VirtualHostSpec(
                    name="inbound",
                    domains=("*",),
                    routes=(RouteSpec(name="inbound", backends=(BackendSpec(cluster="app"),)),),
                ),
            ),
            listeners=(
                ListenerSpec(
                    name="inbound:80",
                    direction="inbound",
                    address="127.0.0.1",
                    port=self.inbound,
                    virtual_host="inbound",
                    mtls=mtls,
                ),
            ),
        )
        a = a if change_a is None else change_a(a)
        b = b if change_b is None else change_b(b)
        self.a_snapshot = a
        issuer = server_authority or authority
        self.a = Sidecar(
            directory,
            "storefront",
            a,
            authority.issue(spiffe("storefront"), directory, "a"),
            settings,
        )
        self.b = Sidecar(
            directory, server, b, issuer.issue(spiffe(server), directory, "b"), settings
        )

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

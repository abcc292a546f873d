"""
A mesh whose certificates can be watched closely: the control plane runs in the test's own process.

    door (sidecar) ──▶ app (sidecar) ──▶ HTTP/1.1, gRPC and TCP apps, in this process
          │                  ▲
          └──▶ mayfly ───────┘     a peer in this process that keeps no connection:
                                   every request, either way, is a handshake of its own
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from control_plane.config import Config, Listen
from control_plane.placement import Placement, Placements
from control_plane.plane import Plane
from control_plane.snapshots import State
from meshproxy import private_file
from meshproxy.config import bootstrap
from meshproxy.config.bootstrap import Bootstrap, ControlPlane
from meshproxy.config.discovery_client import DiscoveryClient
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot
from meshproxy.identity import tls
from meshproxy.identity.certificates import Certificates
from tests.helpers import pair
from tests.helpers.listening import listening
from tests.helpers.origin import hello, origin
from tests.helpers.plane import until
from tests.helpers.ports import free_port
from tests.helpers.steady import REQUEST, Kind, Steady

MESH = """
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: test.mesh, certificates: {lifetime: LIFETIME}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: calls}
spec: {selector: {app: app}, ports: [{port: 9000, appProtocol: grpc}]}
---
apiVersion: v1
kind: Service
metadata: {name: lines}
spec: {selector: {app: app}, ports: [{port: 7000, appProtocol: tcp}]}
---
apiVersion: v1
kind: Service
metadata: {name: mayfly}
spec: {selector: {app: mayfly}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: door}
spec: {serviceAccount: door}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: app, labels: {app: app}}
spec: {serviceAccount: app, ports: [{port: 8080}, {port: 9000}, {port: 7000}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: mayfly, labels: {app: mayfly}}
spec: {serviceAccount: mayfly, ports: [{port: 8080}]}
"""
SERVICES = ("web:80", "calls:9000", "lines:7000", "mayfly:80")
APP, MAYFLY = (f"spiffe://test.mesh/ns/default/sa/{name}" for name in ("app", "mayfly"))


class _Talk(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    def service(self, _details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._talk)

    async def _talk(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request + b"!"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class EnrolledMesh:
    """
    Args:
        directory: Where everything lies.
        lifetime: Of certificates, in seconds.
        apps: By port of the workload, that of its app.
        log_level: Of the sidecars.
        settings: More for their bootstraps.

    Attributes:
        doors: By service, the port at the door's sidecar that leads to it.
        context: File that tells `meshctl` where the control plane is.
        plane: The control plane.
    """

    def __init__(
        self,
        directory: Path,
        lifetime: int,
        apps: dict[int, int],
        log_level: str = "info",
        environments: Mapping[str, Mapping[str, str]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self._settings = settings or {}
        (directory / "mesh.yaml").write_text(MESH.replace("LIFETIME", f"{lifetime}s"))
        self.doors = {service.partition(":")[0]: free_port() for service in SERVICES}
        self.inbound = {port: free_port() for port in apps}
        self.admin = {name: free_port() for name in ("door", "app")}
        self._mayfly_port = free_port()
        self._log_level = log_level
        self._environments = environments or {}
        placements = Placements(
            workloads={
                "default/door": Placement(
                    outbound_port=free_port(),
                    admin_port=self.admin["door"],
                    service_ports={
                        f"default/{service}": self.doors[service.partition(":")[0]]
                        for service in SERVICES
                    },
                ),
                "default/app": Placement(
                    outbound_port=free_port(),
                    admin_port=self.admin["app"],
                    app_ports=apps,
                    inbound_ports=self.inbound,
                ),
                "default/mayfly": Placement(
                    outbound_port=free_port(), inbound_ports={8080: self._mayfly_port}
                ),
            }
        )
        (directory / "placements.json").write_bytes(wire.encode(placements))
        self.directory = directory
        self.context = directory / "context.json"
        self._config = Config(
            state=directory / "plane",
            files=(directory / "mesh.yaml",),
            placements=directory / "placements.json",
            discovery=Listen(port=free_port()),
            api=Listen(port=free_port()),
        )
        self.plane = Plane(self._config)
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None]
        self._sidecars: list[subprocess.Popen[bytes]] = []
        self.mayfly = Certificates(MAYFLY, directory / "mayfly")

    def synced(self) -> bool:
        proxies = self.plane._discovery.proxies
        return len(proxies) == 3 and all(p.state is State.SYNCED for p in proxies.values())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["EnrolledMesh"]:
        await self._start_plane()
        assert self.plane.ports is not None
        token = str(self.directory / "plane" / "operator.token")
        api = f"http://127.0.0.1:{self.plane.ports[1]}"
        self.context.write_text(json.dumps({"api": api, "token_file": token}))
        (self.directory / "roots.pem").write_text("".join(self.plane._authority.roots()))
        mayfly = DiscoveryClient(self._bootstrap("mayfly"), self.mayfly, self._obey)
        following = asyncio.create_task(mayfly.run())
        try:
            for name in ("door", "app"):
                self._start(name)
            await until(self.synced, 60)
            for port in self.admin.values():
                await asyncio.to_thread(pair.until_ready, port, self._sidecars[0], lambda: "")
            async with listening(self._serve, self._mayfly_port):
                yield self
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            for sidecar in self._sidecars:
                sidecar.terminate()
                await asyncio.to_thread(sidecar.wait, 20)
            await self.stop_plane()

    async def _start_plane(self) -> None:
        self._stop.clear()
        self._serving = asyncio.create_task(self.plane.run(self._stop))
        await until(lambda: self.plane.ports or self._serving.done())

    async def stop_plane(self) -> None:
        """Let the control plane be away."""
        self._stop.set()
        await self._serving

    async def restart_plane(self) -> None:
        """Have it back, with what it left on disk."""
        self.plane = Plane(self._config)
        await self._start_plane()

    def give_token(self, name: str) -> None:
        """Put a new join token where the sidecar of a workload looks for it."""
        identity = self.plane._identity_of(f"default/{name}")
        assert identity is not None
        token, _expires = self.plane._tokens.issue(f"default/{name}", identity)
        (private_file.directory(self.directory / name) / "token").write_text(token)

    async def _obey(self, _snapshot: Snapshot) -> None:
        """It knows what to do by itself."""

    def settings(self, name: str) -> dict[str, Any]:
        """Return the bootstrap of a workload's sidecar, with a new token."""
        settings: dict[str, Any] = json.loads(bootstrap.encode(self._bootstrap(name)))
        return settings

    def _bootstrap(self, name: str) -> Bootstrap:
        assert self.plane.ports is not None
        self.give_token(name)
        state = self.directory / name
        return Bootstrap(
            workload=f"default/{name}",
            identity=str(self.plane._identity_of(f"default/{name}")),
            state=state,
            drain_seconds=1,
            control_plane=ControlPlane(
                address="127.0.0.1",
                port=self.plane.ports[0],
                identity=str(self.plane._identity),
                roots=self.directory / "roots.pem",
                token=state / "token",
            ),
        )

    def _start(self, name: str) -> None:
        settings = self.settings(name) | self._settings
        settings["admin"]["port"] = self.admin[name]
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(settings))
        with (self.directory / f"{name}.log").open("ab") as log:
            self._sidecars.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "meshproxy", "run", "--bootstrap", str(path)),
                        *("--log-level", self._log_level),
                    ],
                    stderr=log,
                    env={**os.environ, **self._environments.get(name, {})},
                )
            )

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def page(self, name: str, path: str) -> bytes:
        return pair.get(self.admin[name], path)[1]

    # The mayfly -------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, with the certificate of this moment."""
        context = tls.server_context(self._file, None, self.mayfly.roots)
        context.set_alpn_protocols([tls.ALPN_HTTP1])
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await writer.start_tls(context)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    def handshakes(self) -> Kind:
        """Requests to the app's sidecar, with a handshake each, by the certificate of the moment."""

        async def run(load: Steady) -> None:
            while not load.over.is_set():
                try:
                    await self._ask()
                    load.succeeded("handshake")
                except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
                    load.failed("handshake", error)
                await asyncio.sleep(0.02)

        return run

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection of the mayfly's to the app's sidecar."""
        context = tls.client_context(self._file, None, self.mayfly.roots)
        context.set_alpn_protocols([tls.ALPN_HTTP1])
        return await asyncio.open_connection(
            "127.0.0.1", self.inbound[8080], ssl=context, server_hostname=""
        )

    async def _ask(self) -> None:
        reader, writer = await self.connect()
        try:
            found = tls.peer_identity(writer.transport, "test.mesh")
            assert found == APP, found
            writer.write(REQUEST)
            status = await reader.readuntil(b"\r\n")
            assert b" 200 " in status, status
        finally:
            writer.transport.abort()

    @property
    def _file(self) -> Path:
        file = self.mayfly.file
        assert file is not None
        return file


@contextlib.asynccontextmanager
async def enrolled_mesh(
    directory: Path,
    lifetime: int,
    log_level: str = "info",
    environments: Mapping[str, Mapping[str, str]] | None = None,
    **settings: Any,
) -> AsyncIterator[EnrolledMesh]:
    """Run it all; `environments` are more variables for a sidecar's process, by its name."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Talk(),))
    calls = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with (
            origin(hello) as web,
            listening(_echo) as lines,
        ):
            apps = {8080: web.port, 9000: calls, 7000: lines}
            made = EnrolledMesh(directory, lifetime, apps, log_level, environments, settings)
            async with made.running() as mesh:
                yield mesh
    finally:
        await server.stop(0)

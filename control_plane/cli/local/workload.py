"""
One workload of a local mesh: a sidecar, and the app beside it.

The app starts when its sidecar is ready, as in a pod where the sidecar is a native one: its first
outgoing request is then a request through the mesh and not an error.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from control_plane.cli.client import UnreachableError, request
from control_plane.cli.local.allocation import Ports
from control_plane.cli.local.credentials import has_certificate
from control_plane.cli.local.desired import Unit
from control_plane.cli.local.environment import app_environment, expand
from control_plane.cli.local.logs import Console
from control_plane.cli.local.network import SIDECAR, Network
from control_plane.cli.local.plane import LocalControlPlane, own_environment, own_program
from control_plane.cli.local.polling import until
from control_plane.cli.local.process import (
    Command,
    Groups,
    ManagedProcess,
    NotReadyError,
    Prepare,
)
from control_plane.cli.local.rundir import RunDirectory
from control_plane.placement import Placement
from control_plane.resources.model import Service
from meshproxy import interpreter

DRAIN = 10
"""Seconds in which a sidecar finishes the requests it has when it is asked to stop."""
SIDECAR_GRACE = DRAIN + 3.0
APP_GRACE = 5.0
READY_WITHIN = 20.0


class LocalWorkload:
    """
    The two processes of a workload.

    Attributes:
        unit: What runs, or is about to.
        placement: Its ports.
        services: What its app can call, as of the app's next start.
        service_addresses: The virtual addresses of services, where they have some.
        namespace: The network namespace that both live in; None for ours.
    """

    def __init__(
        self,
        unit: Unit,
        placement: Placement,
        services: Sequence[Service],
        *,
        trust_domain: str,
        plane: LocalControlPlane,
        directory: RunDirectory,
        console: Console,
        on_group: Groups,
        ports: Ports,
        network: Network | None = None,
    ) -> None:
        self.unit = unit
        self.placement = placement
        self.services = services
        self.service_addresses: Mapping[str, Sequence[str]] = {}
        self.namespace = network.namespace(unit.name) if network is not None else None
        self._sidecar_user = SIDECAR if network is not None else None
        self._app_user = network.app_user if network is not None else None
        self._trust_domain = trust_domain
        self._plane = plane
        self._directory = directory
        self._console = console
        self._on_group = on_group
        self._ports = ports
        self.sidecar = self._process("proxy", self._prepare_sidecar, SIDECAR_GRACE)
        self.app = self._new_app()

    def start(self) -> None:
        self.sidecar.start()
        if self.app is not None:
            self.app.start()

    async def restart_sidecar(self) -> None:
        """Drain the sidecar and start it anew; the app stays."""
        await self.sidecar.stop()
        self.sidecar = self._process("proxy", self._prepare_sidecar, SIDECAR_GRACE)
        self.sidecar.start()

    async def restart_app(self) -> None:
        """Start the app that the unit names now, after stopping the one it named before."""
        await self.stop_app()
        self.app = self._new_app()
        if self.app is not None:
            self.app.start()

    async def stop_app(self) -> None:
        if self.app is not None:
            await self.app.stop()

    async def stop(self) -> None:
        """Stop the app, then the sidecar: what the app still has to say can leave."""
        await self.stop_app()
        await self.sidecar.stop()

    async def is_ready(self) -> bool:
        """Say whether the sidecar has certificate and configuration."""
        try:
            status, _ = await asyncio.to_thread(
                request, self.admin, "GET", "/healthz/ready", timeout=1.0
            )
        except UnreachableError:
            return False
        return status == 200

    @property
    def admin(self) -> str:
        return f"{self.placement.address}:{self.placement.admin_port}"

    @property
    def app_address(self) -> str:
        """Where the app listens, as seen from beside it."""
        return self.placement.app_address or self.placement.address

    def processes(self) -> list[ManagedProcess]:
        return [self.sidecar] if self.app is None else [self.app, self.sidecar]

    # What each start needs ------------------------------------------------------------------------

    async def _prepare_sidecar(self) -> Command:
        unit, name = self.unit, self.unit.name
        user = self._sidecar_user
        state = self._directory.state(
            self._trust_domain, *name.split("/"), user=user.uid if user else None
        )
        token = self._directory.token(name)
        if has_certificate(state, unit.sidecar.identity, datetime.now(UTC)):
            token.unlink(missing_ok=True)
        else:
            self._directory.write(token, (await self._plane.token(name)).encode())
        bootstrap = {
            "workload": name,
            "identity": unit.sidecar.identity,
            "version": unit.sidecar.version,
            "state": str(state),
            "admin": {"address": self.placement.address, "port": self.placement.admin_port},
            "drain_seconds": DRAIN,
            "control_plane": {
                **self._plane.described(),
                "token": str(token) if token.exists() else None,
            },
        }
        path = self._directory.bootstrap(name)
        self._directory.write(path, json.dumps(bootstrap, indent=2).encode())
        return Command(
            own_program("meshproxy", "run", "--bootstrap", str(path), "--allow-root"),
            interpreter.environment(own_environment(os.environ)),
            self._directory.path,
            self.namespace,
            user,
        )

    async def _prepare_app(self) -> Command:
        app = self.unit.app
        assert app is not None
        try:
            async with asyncio.timeout(READY_WITHIN):
                await until(self.is_ready)
        except TimeoutError:
            raise NotReadyError(
                f"its sidecar is not ready: http://{self.admin}/healthz/ready says why"
            ) from None
        environment = app_environment(
            self.unit.workload, self.placement, self.services, os.environ, self.service_addresses
        )
        # It may bind without SO_REUSEADDR, which a reservation would refuse.
        self._ports.lend(self.placement.app_ports.values())
        return Command(
            tuple(expand(word, environment) for word in app.command),
            environment,
            app.directory,
            self.namespace,
            self._app_user,
        )

    def _new_app(self) -> ManagedProcess | None:
        if self.unit.app is None:
            return None
        return self._process("app", self._prepare_app, APP_GRACE)

    def _process(self, role: str, prepare: Prepare, grace: float) -> ManagedProcess:
        name = f"{self.unit.name.removeprefix('default/')}/{role}"
        log = self._directory.logs / f"{name.replace('/', '.')}.log"
        return ManagedProcess(
            name,
            prepare,
            self._console,
            log,
            grace=grace,
            on_group=self._on_group,
            own=role == "proxy",
        )

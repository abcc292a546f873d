"""A control plane in this process: real sockets, real TLS, and snapshots that a test sets by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
from aiohttp import web

from control_plane import peer
from control_plane.attestation import Attestation, RateLimit, Renewal
from control_plane.authority import Authority
from control_plane.debounce import Debounce
from control_plane.discovery import Discovery
from control_plane.enrolment import Enrolment
from control_plane.join_tokens import JoinTokens
from control_plane.metrics import Metrics
from control_plane.revocation import Revocations
from meshproxy import private_file
from meshproxy.config.bootstrap import Bootstrap, ControlPlane
from meshproxy.config.discovery_client import DiscoveryClient
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.identity.certificates import Certificates

TRUST_DOMAIN = "mesh.local"
PLANE = SpiffeId.of(TRUST_DOMAIN, "mesh-system", "control-plane")
CATALOG = SpiffeId.of(TRUST_DOMAIN, "default", "catalog")
REVIEWS = SpiffeId.of(TRUST_DOMAIN, "default", "reviews")


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `condition` holds; it is asked again after each turn of the loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Plane:
    """
    What the composition root of the control plane puts together, less the resources.

    Attributes:
        wanted: Snapshot of each workload (``namespace/name``), by `want`.
        broken: Workloads whose snapshot cannot be made.
    """

    def __init__(self, state: Path, port: int, debounce: Debounce | None = None) -> None:
        self.state = private_file.directory(state)
        self.port = port
        self.lifetime = timedelta(hours=24)
        self.identities = {"default/catalog-v1": CATALOG, "default/reviews": REVIEWS}
        self.wanted: dict[str, Snapshot] = {}
        self.broken: set[str] = set()
        self.authority = Authority(state / "authority", TRUST_DOMAIN)
        self.tokens = JoinTokens(state / "tokens.json")
        self.metrics = Metrics()
        self.revocations = Revocations(state / "revoked.json")
        self.enrolment = Enrolment(
            authority=self.authority,
            attestation=Attestation(self.tokens, Renewal(), RateLimit(), revoked=self.revocations),
            identity_of=self.identities.get,
            lifetime=lambda: self.lifetime,
            metrics=self.metrics,
        )
        self.discovery = Discovery(
            trust_domain=TRUST_DOMAIN,
            identity_of=self.identities.get,
            snapshot_for=self.snapshot_for,
            metrics=self.metrics,
            revoked=self.revocations,
            debounce=debounce,
        )

    def snapshot_for(self, workload: str) -> Snapshot | None:
        if workload in self.broken:
            raise RuntimeError("a mistake in a generator")
        return self.wanted.get(workload)

    def want(self, workload: str, snapshot: Snapshot) -> Snapshot:
        """Set what a workload's proxy must know (trust is added), and tell the discovery."""
        trust = TrustSpec(
            trust_domain=TRUST_DOMAIN,
            roots=self.authority.roots(),
            revoked=self.revocations.identities(),
        )
        content = msgspec.structs.replace(snapshot, trust=(trust,))
        self.wanted[workload] = msgspec.structs.replace(content, version=wire.version_of(content))
        self.discovery.changed()
        return self.wanted[workload]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Plane"]:
        key, signed = self.authority.issue(PLANE, self.lifetime)
        own = self.state / "plane.pem"
        private_file.write(own, (key + signed.chain).encode())
        app = web.Application()
        app.router.add_get("/v1/identity", self.enrolment.handle)
        app.router.add_get("/v1/discovery", self.discovery.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        context = peer.server_context(own, self.authority.roots())
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        fan_out = asyncio.create_task(self.discovery.run())
        try:
            yield self
        finally:
            fan_out.cancel()
            await asyncio.gather(fan_out, return_exceptions=True)
            self.discovery.close()
            await runner.cleanup()


class Sidecar:
    """
    The identity and configuration of one sidecar, and what it was told to obey.

    Attributes:
        applied: Every snapshot that was put into force.
        refuse: When set, the next snapshots are refused with it.
    """

    def __init__(
        self,
        plane: Plane,
        state: Path,
        *,
        workload: str = "default/catalog-v1",
        identity: SpiffeId = CATALOG,
        token: str | None = None,
        roots: Path | None = None,
        plane_identity: SpiffeId = PLANE,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        private_file.directory(state)
        if roots is None:
            roots = state / "plane-roots.pem"
            roots.write_text("".join(plane.authority.roots()))
        token_file = state / "token"
        if token is not None:
            token_file.write_text(token)
        self.applied: list[Snapshot] = []
        self.refuse: ContractError | None = None
        self.bootstrap = Bootstrap(
            workload=workload,
            identity=str(identity),
            state=state,
            control_plane=ControlPlane(
                address="127.0.0.1",
                port=plane.port,
                identity=str(plane_identity),
                roots=roots,
                token=token_file if token is not None else None,
            ),
        )
        self.certificates = Certificates(str(identity), state, clock=clock, pause=pause)
        self.client = DiscoveryClient(
            self.bootstrap, self.certificates, self._apply, build="test", admin="127.0.0.1:15000"
        )

    async def _apply(self, snapshot: Snapshot) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.applied.append(snapshot)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sidecar"]:
        task = asyncio.create_task(self.client.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

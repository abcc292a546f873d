"""
The composition root: builds the parts of one proxy, starts them, drains them, stops them.

    start   bootstrap → certificate → last good snapshot (or the static one) → listeners → admin
    live    discovery hands over snapshots; `Mesh.adopt` obeys each of them whole or not at all
    drain   SIGTERM: no new connections; requests under way finish, up to the drain time
    stop    whatever is left is closed
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshproxy import __version__
from meshproxy.admin import Admin, as_json
from meshproxy.config.bootstrap import Bootstrap
from meshproxy.config.snapshot import Mesh
from meshproxy.config.static import read_snapshot
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.identity.certificates import Certificates
from meshproxy.telemetry.metrics import ConnectionSeries, Metrics

if TYPE_CHECKING:
    from meshproxy.config.discovery_client import DiscoveryClient

log = logging.getLogger("meshproxy")

SWEEP = 5.0
"""Seconds between two looks at connections that nobody needs any more."""

DISCOVER_AGAIN = 5.0
"""Seconds of rest after a failure that nobody foresaw."""

DRAIN_LOOK = 0.05
"""Seconds between two looks at whether all requests have finished."""


class Environment:
    """What the parts may ask of the process around them (`exchange.Surroundings` and more)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bootstrap: Bootstrap,
        certificates: Certificates,
        metrics: Metrics,
    ) -> None:
        self.loop = loop
        self.workload = bootstrap.workload
        self.version = bootstrap.version
        self.identity = bootstrap.identity
        self.trust_domain = SpiffeId.parse(bootstrap.identity).trust_domain
        self.metrics = metrics
        self.exchanges = 0
        self.tunnels = 0
        self.now: Callable[[], float] = time.monotonic
        self.random: Callable[[], float] = random.random
        self._certificates = certificates

    @property
    def server_context(self) -> ssl.SSLContext | None:
        return self._certificates.server

    @property
    def client_context(self) -> ssl.SSLContext | None:
        return self._certificates.client

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(seconds, callback)

    def retried(self, service: str, reason: str) -> None:
        self.metrics.retried(service, reason)

    def retry_skipped(self, service: str, reason: str) -> None:
        self.metrics.retry_skipped(service, reason)

    def refused(self, direction: str, code: str) -> None:
        self.metrics.refused(direction, code)

    def connections_to(self, direction: str) -> ConnectionSeries:
        return self.metrics.connection("upstream", direction)

    def handshake_failed(self, reason: str) -> None:
        self.metrics.handshake_failed("upstream", reason)


class Proxy:
    """One sidecar, from start to stop."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics()
        self._certificates = Certificates(bootstrap.identity, bootstrap.state)
        self._environment = Environment(self._loop, bootstrap, self._certificates, self._metrics)
        self._mesh = Mesh(self._environment)
        self._admin = Admin(self._loop)
        self._discovery: DiscoveryClient | None = None
        self._discovering: asyncio.Task[None] | None = None
        self._started = False
        self._configured = False
        self._draining = False
        self._hurried = False
        self._sweeping: asyncio.TimerHandle | None = None

    # Start ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Begin to serve.

        Raises:
            ContractError: The static snapshot cannot be obeyed, or the admin port cannot be had.
            CertificateError: The static certificate cannot be used.
        """
        bootstrap = self._bootstrap
        self._offer_pages()
        try:
            await self._admin.start(bootstrap.admin.address, bootstrap.admin.port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            message = f"cannot listen on {self._admin_address}: {reason}"
            raise ContractError("admin.port", message) from None
        if bootstrap.static is not None:
            snapshot = read_snapshot(bootstrap.static.snapshot)
            if bootstrap.static.certificate is None:
                _check_without_certificate(snapshot)
            for trust in snapshot.trust:
                if trust.trust_domain == self._environment.trust_domain:
                    self._certificates.trust(trust.roots)
            if bootstrap.static.certificate is not None:
                key = bootstrap.static.key or bootstrap.static.certificate
                self._certificates.load_files(bootstrap.static.certificate, key)
            self._adopt(snapshot)
        else:
            # Not at the top: its WebSocket library is a third of all the imports' time, and a
            # static proxy needs none.
            from meshproxy.config.discovery_client import DiscoveryClient

            self._discovery = DiscoveryClient(
                bootstrap,
                self._certificates,
                self._adopt,
                build=__version__,
                admin=self._admin_address,
            )
            self._discovering = self._loop.create_task(self._discover(self._discovery))
        self._sweep()
        self._started = True

    async def _discover(self, discovery: "DiscoveryClient") -> None:
        """Follow the control plane, whatever happens: traffic goes on in the meantime."""
        while True:
            try:
                await discovery.run()
            except Exception:  # a mistake of ours must not end in silence
                log.exception("following the control plane failed; trying again")
                await asyncio.sleep(DISCOVER_AGAIN)

    @property
    def _admin_address(self) -> str:
        return f"{self._bootstrap.admin.address}:{self._bootstrap.admin.port}"

    def _adopt(self, snapshot: Snapshot) -> None:
        """
        Obey a snapshot.

        Raises:
            ContractError: It cannot be obeyed; the one before stays in force.
        """
        try:
            self._mesh.adopt(snapshot)
        except ContractError as error:
            self._metrics.config_refused += 1
            if self._started:  # before, whoever starts us is told
                log.error("config %s refused: %s", snapshot.version, error)
            raise
        first = not self._configured
        self._configured = True
        self._metrics.config_version = snapshot.version
        self._metrics.config_applied_at = time.time()
        log.info(
            "config %s in force: %d listeners, %d virtual hosts, %d clusters",
            snapshot.version, len(snapshot.listeners), len(snapshot.virtual_hosts), len(snapshot.clusters),
        )  # fmt: skip
        if first:
            # What exists now lives for ever: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 50, 1_000)

    # Live -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Configured, and in possession of a certificate wherever one is needed."""
        snapshot = self._mesh.snapshot
        needs = any(spec.mtls == "strict" for spec in snapshot.listeners) or any(
            spec.mtls for spec in snapshot.clusters
        )
        return self._configured and not self._draining and (self._certificates.ready or not needs)

    def _offer_pages(self) -> None:
        page = self._admin.page
        page("/metrics", "text", self._page_metrics, slow=True)
        page("/healthz/live", "text", lambda: (200, b"live\n"))
        page("/healthz/ready", "text", self._page_ready)
        page("/config", "json", lambda: (200, as_json(self._mesh.snapshot)))
        page("/clusters", "json", self._page_clusters)
        page("/certs", "json", lambda: (200, as_json(self._certificates.described())))

    def _page_metrics(self) -> tuple[int, bytes]:
        metrics = self._metrics
        metrics.certificate_not_after = self._certificates.not_after
        metrics.tunnels = self._environment.tunnels
        metrics.connected = self._discovery is not None and self._discovery.connected
        return 200, metrics.render(time.time())

    def _page_ready(self) -> tuple[int, bytes]:
        if self.ready:
            return 200, b"ready\n"
        if self._draining:
            return 503, b"draining\n"
        if not self._configured:
            error = self._discovery.last_error if self._discovery else None
            return 503, f"no configuration yet{f': {error}' if error else ''}\n".encode()
        return 503, b"no valid certificate\n"

    def _page_clusters(self) -> tuple[int, bytes]:
        clusters = self._mesh.clusters.values()
        return 200, as_json([cluster.statistics() for cluster in clusters])

    def _sweep(self) -> None:
        self._mesh.sweep(self._environment.now())
        self._sweeping = self._loop.call_later(SWEEP, self._sweep)

    # Drain and stop -------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Accept no more and wait for what runs, up to the drain time."""
        self._draining = True
        self._mesh.drain()
        log.info("draining: %d requests under way", self._environment.exchanges)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bootstrap.drain_seconds):
                while not self._hurried and (self._environment.exchanges or self._mesh.connections):
                    await asyncio.sleep(DRAIN_LOOK)
        if self._environment.exchanges:
            log.warning("not drained in time: %d requests cut", self._environment.exchanges)

    def hurry(self) -> None:
        """Drain no longer: whoever asked a second time means now."""
        self._hurried = True

    async def stop(self) -> None:
        """End everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._discovering is not None:
            self._discovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._discovering
        self._mesh.close()
        self._admin.close()
        if self._started:
            log.info("stopped (meshproxy %s)", __version__)


def _check_without_certificate(snapshot: Snapshot) -> None:
    """
    Refuse what a proxy that will never have a certificate could never do.

    Raises:
        ContractError: Something asks for mutual TLS.
    """
    needing = [f"cluster/{spec.name}" for spec in snapshot.clusters if spec.mtls]
    needing += [f"listener/{spec.name}" for spec in snapshot.listeners if spec.mtls == "strict"]
    if needing:
        raise ContractError(f"{needing[0]} mtls", "needs static.certificate and static.key")

"""
The composition root: builds the parts of one proxy, starts them, drains them, stops them.

    start   bootstrap → certificate → last good snapshot (or the static one) → listeners → admin
    live    discovery hands over snapshots; each is obeyed whole or not at all
    drain   SIGTERM or a successor: no new connections; requests under way finish, up to the drain
            time
    stop    whatever is left is closed

A process that is started beside one that serves (with the same state directory) takes over from
it: it gets ready on the sockets of the other, and only then accepts (`lifecycle/takeover.py`).

Traffic is served by this process (`traffic.py`) or by workers that it leads (`lifecycle/crew.py`).
"""

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Literal

from meshproxy import __version__
from meshproxy.admin import Admin, as_json
from meshproxy.config.bootstrap import Bootstrap
from meshproxy.config.static import read_snapshot
from meshproxy.contract.resources import Snapshot, without_secrets
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.downstream.sockets import Place, Sockets
from meshproxy.identity.certificates import Certificates
from meshproxy.lifecycle import takeover
from meshproxy.lifecycle.takeover import Door, Predecessor, TakeoverError
from meshproxy.private_file import PrivateFileError
from meshproxy.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import socket

    from meshproxy.config.discovery_client import DiscoveryClient
    from meshproxy.lifecycle.crew import Crew
    from meshproxy.traffic import Traffic

log = logging.getLogger("meshproxy")

DISCOVER_AGAIN = 5.0
"""Seconds of rest after a failure that nobody foresaw."""

READY_LOOK = 0.02
"""Seconds between two looks at whether a successor is ready to serve."""

Takeover = Literal["auto", "require", "never"]
"""Take over from a process that serves: if there is one, or else fail, or not at all."""


class Proxy:
    """
    One sidecar, from start to stop.

    Attributes:
        finished: Set when it is time to drain and stop: by a signal, or by a successor that serves.
    """

    def __init__(self, bootstrap: Bootstrap, takeover: Takeover = "auto") -> None:
        self._bootstrap = bootstrap
        self._takeover = takeover
        self._loop = asyncio.get_running_loop()
        self._metrics = Metrics()
        self._certificates = Certificates(bootstrap.identity, bootstrap.state)
        self._sockets = Sockets()
        self._traffic = self._new_traffic()
        self._snapshot = Snapshot()
        self._admin = Admin(self._loop)
        self._discovery: DiscoveryClient | None = None
        self._discovering: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._started = False
        self._configured = False
        self._draining = False
        self.finished = asyncio.Event()

    def _new_traffic(self) -> "Traffic | Crew":
        """Return what serves: this process, or several that it leads; the words are the same."""
        parts = (self._bootstrap, self._certificates, self._metrics, self._sockets)
        if self._bootstrap.workers == 1:
            from meshproxy.traffic import Traffic  # a parent of workers needs none of it

            return Traffic(*parts)
        from meshproxy.lifecycle.crew import Crew

        return Crew(*parts)

    # Start ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Begin to serve.

        Raises:
            ContractError: The static snapshot cannot be obeyed, or the admin port cannot be had.
            CertificateError: The static certificate cannot be used.
            TakeoverError: Another process serves and could not be relieved.
        """
        self._offer_pages()
        predecessor = await self._find_predecessor()
        try:
            if predecessor is None:
                await self._open_admin()
            await self._traffic.start()
            await self._configure()
            if predecessor is not None:
                await self._take_over(predecessor)
        finally:
            if predecessor is not None:
                predecessor.close()
        self._started = True
        self._await_successor()

    async def _configure(self) -> None:
        """Obey the static snapshot, or begin to follow the control plane."""
        bootstrap = self._bootstrap
        if bootstrap.static is not None:
            snapshot = read_snapshot(bootstrap.static.snapshot)
            if bootstrap.static.certificate is None:
                _check_without_certificate(snapshot)
            own = SpiffeId.parse(bootstrap.identity).trust_domain
            for trust in snapshot.trust:
                if trust.trust_domain == own:
                    self._certificates.trust(trust.roots)
            if bootstrap.static.certificate is not None:
                key = bootstrap.static.key or bootstrap.static.certificate
                self._certificates.load_files(bootstrap.static.certificate, key)
            await self._adopt(snapshot)
        else:
            # Not at the top: its WebSocket library is a third of all the imports' time, and a
            # static proxy needs none.
            from meshproxy.config.discovery_client import DiscoveryClient

            self._discovery = DiscoveryClient(
                bootstrap,
                self._certificates,
                self._adopt,
                build=__version__,
                admin=str(bootstrap.admin),
            )
            self._follow()

    def _follow(self) -> None:
        if self._discovery is not None:
            self._discovering = self._loop.create_task(self._discover(self._discovery))

    async def _follow_no_more(self) -> None:
        if self._discovering is not None:
            self._discovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._discovering

    async def _discover(self, discovery: "DiscoveryClient") -> None:
        """Follow the control plane, whatever happens: traffic goes on in the meantime."""
        while True:
            try:
                await discovery.run()
            except Exception:  # a mistake of ours must not end in silence
                log.exception("following the control plane failed; trying again")
                await asyncio.sleep(DISCOVER_AGAIN)

    async def _open_admin(self) -> None:
        admin = self._bootstrap.admin
        try:
            await self._admin.start(self._sockets.take(admin.place))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            field = "admin.port" if admin.socket is None else "admin.socket"
            raise ContractError(field, f"cannot listen on {admin}: {reason}") from None

    async def _adopt(self, snapshot: Snapshot) -> None:
        """
        Obey a snapshot.

        Raises:
            ContractError: It cannot be obeyed; the one before stays in force.
        """
        try:
            await self._traffic.adopt(snapshot)
        except ContractError as error:
            self._metrics.config_refused += 1
            if self._started:  # before, whoever starts us is told
                log.error("config %s refused: %s", snapshot.version, error)
            raise
        self._configured = True
        self._snapshot = snapshot
        self._metrics.config_version = snapshot.version
        self._metrics.config_applied_at = time.time()
        log.info(
            "config %s in force: %d listeners, %d virtual hosts, %d clusters",
            snapshot.version, len(snapshot.listeners), len(snapshot.virtual_hosts), len(snapshot.clusters),
        )  # fmt: skip

    # Hot restart: from the process before us, to the one after us ---------------------------------

    async def _find_predecessor(self) -> Predecessor | None:
        """Return the process to relieve, after it has handed over what it listens on."""
        state = self._bootstrap.state
        predecessor = None if self._takeover == "never" else await takeover.find(state)
        if predecessor is None:
            if self._takeover == "require":
                raise TakeoverError(f"nobody serves with {state}, and taking over was required")
            return None
        for place, sockets in (await predecessor.sockets()).items():
            self._sockets.hand(place, sockets)
        self._traffic.hold()
        return predecessor

    async def _take_over(self, predecessor: Predecessor) -> None:
        """Get ready while the other still serves; then accept, then tell it so."""
        try:
            async with asyncio.timeout(takeover.READY_WITHIN):
                while not self.ready:
                    await asyncio.sleep(READY_LOOK)
        except TimeoutError:
            why = self._page_ready()[1].decode().strip()
            raise TakeoverError(f"not ready to take over, {predecessor} goes on: {why}") from None
        await self._traffic.open()
        await self._open_admin()
        await predecessor.relieve()
        self._sockets.close()

    def _await_successor(self) -> None:
        self._door = Door(
            self._bootstrap.state,
            sockets=self._listening,
            on_asked=self._follow_no_more,
            on_failed=self._on_takeover_failed,
            on_taken=self._on_taken_over,
        )
        try:
            self._door.open()
        except (OSError, PrivateFileError) as error:
            log.warning("no other process will be able to take over from this one: %s", error)

    def _listening(self) -> dict[Place, list["socket.socket"]]:
        return {**self._traffic.sockets, self._bootstrap.admin.place: self._admin.sockets}

    def _on_takeover_failed(self) -> None:
        if not self.finished.is_set():
            self._follow()

    async def _on_taken_over(self) -> None:
        self._draining = True
        self._admin.stop_listening()
        await self._traffic.retreat()
        self.finished.set()

    # Live -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Configured, and in possession of a certificate wherever one is needed."""
        snapshot = self._snapshot
        needs = (
            any(spec.mtls == "strict" for spec in snapshot.listeners)
            or any(spec.mtls == "strict" for spec in snapshot.destinations)
            or any(spec.mtls for spec in snapshot.clusters)
        )
        certified = self._certificates.ready or not needs
        return self._configured and certified and self._traffic.ready and not self._draining

    def _offer_pages(self) -> None:
        page = self._admin.page
        page("/metrics", "text", self._page_metrics, slow=True)
        page("/healthz/live", "text", lambda: (200, b"live\n"))
        page("/healthz/ready", "text", self._page_ready)
        # In a thread: that of a large mesh has megabytes.
        page("/config", "json", self._page_config, slow=True)
        # Workers have to be asked, which a page can only wait for in a thread.
        page("/clusters", "json", self._page_clusters, slow=self._bootstrap.workers > 1)
        page("/certs", "json", lambda: (200, as_json(self._certificates.described())))
        workers = self._bootstrap.workers > 1
        self._admin.finding("/denials", self._page_denials, slow=workers)
        if self._bootstrap.admin.drain:
            self._admin.action("/drain", self._drain_by_admin)

    def _page_metrics(self) -> tuple[int, bytes]:
        metrics = self._traffic.counted()
        certificates = self._certificates
        metrics.certificate_not_after = certificates.not_after
        metrics.certificate_age = certificates.age
        metrics.certificate_renewals = certificates.renewals
        metrics.certificate_failures = certificates.failures
        metrics.certificate_worry = certificates.worry is not None
        metrics.connected = self._discovery is not None and self._discovery.connected
        return 200, metrics.render(time.time())

    def _page_ready(self) -> tuple[int, bytes]:
        if self.ready:
            worry = self._certificates.worry
            return 200, b"ready\n" if worry is None else f"ready, degraded: {worry}\n".encode()
        if self._draining:
            return 503, b"draining\n"
        if not self._configured:
            error = self._discovery.last_error if self._discovery else None
            error = error or self._certificates.last_error  # without one, nothing is discovered
            return 503, f"no configuration yet{f': {error}' if error else ''}\n".encode()
        if not self._traffic.ready:
            return 503, b"not all workers are ready\n"
        return 503, b"no valid certificate\n"

    def _page_config(self) -> tuple[int, bytes]:
        return 200, as_json(without_secrets(self._snapshot))

    def _page_denials(self, number: str) -> tuple[int, bytes]:
        return 200, as_json(self._traffic.denials(number))

    def _page_clusters(self) -> tuple[int, bytes]:
        return 200, as_json(self._traffic.clusters())

    # Drain and stop -------------------------------------------------------------------------------

    def _drain_by_admin(self) -> tuple[int, bytes]:
        log.info("drain: asked for at the admin port")
        self.finished.set()
        return 202, b"draining\n"

    async def drain(self) -> None:
        """Accept no more and wait for what runs, up to the drain time."""
        self._draining = True
        await self._traffic.drain()

    def hurry(self) -> None:
        """Drain no longer: whoever asked a second time means now."""
        self._traffic.hurry()

    async def stop(self) -> None:
        """End everything."""
        if self._door is not None:
            self._door.close()
        await self._follow_no_more()
        await self._traffic.close()
        self._sockets.close()
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

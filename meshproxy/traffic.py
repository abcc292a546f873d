"""
What serves traffic in one process: the mesh it obeys, what is around it, and how it ends.

A proxy of one process has one of these; with workers, each of them has one (`lifecycle/worker.py`)
and the parent has a `lifecycle/crew.py`, which understands the same words.
"""

import asyncio
import contextlib
import gc
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from meshproxy.config.bootstrap import Bootstrap
from meshproxy.config.snapshot import Mesh, Prepared
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.downstream.admission import Admission, resident_memory
from meshproxy.downstream.handshakes import Handshakes
from meshproxy.downstream.relief import Relief
from meshproxy.downstream.sockets import Place, Sockets
from meshproxy.flow import turn_of
from meshproxy.identity.certificates import Certificates
from meshproxy.neighbours import Surroundings
from meshproxy.policies.deadline import LOOK
from meshproxy.policies.propagation import Propagation
from meshproxy.policies.replay import ReplayMemory
from meshproxy.telemetry.denials import Denials
from meshproxy.telemetry.gauges import Gauges
from meshproxy.telemetry.loop_lag import Heartbeat
from meshproxy.telemetry.metrics import ConnectionSeries, Metrics
from meshproxy.timer_wheel import TimerWheel
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.tcp import TcpConnection

log = logging.getLogger("meshproxy")

SWEEP = 5.0
"""Seconds between two looks at connections that nobody needs any more."""

MEMORY_LOOK = 0.1
"""Seconds between two looks at how much memory is in use."""

DRAIN_LOOK = 0.05
"""Seconds between two looks at whether all requests have finished."""


class Environment(Surroundings):
    """What the parts may ask of the process around them (`neighbours.Surroundings` and more)."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        certificates: Certificates,
        metrics: Metrics,
        sockets: Sockets,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.workload = bootstrap.workload
        self.version = bootstrap.version
        self.workers = bootstrap.workers
        self.identity = bootstrap.identity
        self.trust_domain = SpiffeId.parse(bootstrap.identity).trust_domain
        self.drain_seconds = bootstrap.drain_seconds
        self.half_closing = bootstrap.half_closing_clients
        self.admission = Admission(
            bootstrap.limits.connections,
            bootstrap.limits.memory,
            bootstrap.limits.accept_rate,
            workers=bootstrap.workers,
            now=time.monotonic,
        )
        self.replay = ReplayMemory(bootstrap.limits.replay, lambda: self.admission.short_of_memory)
        self.handshakes = Handshakes(self.loop)
        self.metrics = metrics
        self.sockets = sockets
        self.exchanges = set()
        self.tunnels = 0
        self.tokens = None
        self.propagation = Propagation()
        self.now = time.monotonic
        self.wall: Callable[[], float] = time.time
        self.random = random.random
        self.timers = TimerWheel(self.now, self.loop.call_later)
        self.revoked: frozenset[str] = frozenset()
        self.listening: frozenset[tuple[str, int]] = frozenset()
        self.pools: set[Pool] = set()
        self.dialled: set[TcpConnection] = set()
        self.denials = Denials(self.now, self.wall)
        self._certificates = certificates
        self._skips: set[tuple[str, str]] = set()  # as many as services and reasons there are

    @property
    def surroundings(self) -> Surroundings:
        return self

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
        """Count it, and say so the first time: it may be what somebody wonders about."""
        self.metrics.retry_skipped(service, reason)
        if (service, reason) not in self._skips:
            self._skips.add((service, reason))
            log.info(
                "%s: a retry was not made: %s; further ones are only counted"
                " (mesh_retries_skipped_total)",
                service, reason,
            )  # fmt: skip

    def hedged(self, service: str) -> None:
        self.metrics.hedged(service)

    def hedge_won(self, service: str) -> None:
        self.metrics.hedge_won(service)

    def refused(self, direction: str, code: str) -> None:
        self.metrics.refused(direction, code)

    def cancelled(self, service: str) -> None:
        self.metrics.cancelled(service)

    def rate_limited(self, direction: str, limit: str, why: str) -> None:
        self.metrics.rate_limited(direction, limit, why)

    def fault_injected(self, direction: str, fault: str, kind: str) -> None:
        self.metrics.fault_injected(direction, fault, kind)

    def shed(self, service: str, criticality: str) -> None:
        self.metrics.shed(service, criticality)

    def mirrored(self, service: str, outcome: str) -> None:
        self.metrics.mirrored(service, outcome)

    def connections_to(self, direction: str) -> ConnectionSeries:
        return self.metrics.connection("upstream", direction)

    def handshake_failed(self, reason: str) -> None:
        self.metrics.handshake_failed("upstream", reason)


class Traffic:
    """
    Attributes:
        ready: Whether all that serves obeys the configuration; of one process, always.
    """

    ready = True

    def __init__(
        self, bootstrap: Bootstrap, certificates: Certificates, metrics: Metrics, sockets: Sockets
    ) -> None:
        self.environment = Environment(bootstrap, certificates, metrics, sockets)
        self.mesh = Mesh(self.environment)
        self._metrics = metrics
        self._obeyed = False
        self._hurried = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._relief = Relief(
            self.environment.admission, turn_of(self.environment.loop), self.environment.refused
        )
        self._relieving: asyncio.TimerHandle | None = None
        environment = self.environment
        self._heart = Heartbeat(metrics.loop_lag, environment.now, environment.loop.call_later)

    # Start ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._sweep()
        self._look()
        if self.environment.admission.memory:
            self._look_at_memory()
        self._heart.start()

    def hold(self) -> None:
        """Accept nothing before `open`: another process still serves these ports."""
        self.mesh.hold()

    async def adopt(self, snapshot: Snapshot) -> None:
        """
        Obey a snapshot.

        Raises:
            ContractError: It cannot be obeyed; the one before stays in force.
        """
        self.commit(self.mesh.prepare(snapshot))

    def commit(self, prepared: Prepared) -> None:
        """Obey what the mesh has prepared."""
        self.mesh.commit(prepared)
        if not self._obeyed:
            self._obeyed = True
            # What exists now lives for ever: the collector need not walk it again and again.  (Nor
            # once now: imports and configuration leave next to nothing for it, and it would take a
            # twentieth of the start.)
            gc.freeze()

    async def open(self) -> None:
        """Accept from now on."""
        self.mesh.open()

    # Live -----------------------------------------------------------------------------------------

    @property
    def sockets(self) -> dict[Place, list[socket.socket]]:
        """What is accepted from, for a successor."""
        return self.mesh.sockets

    def counted(self) -> Metrics:
        """Return what was counted."""
        self._metrics.tunnels = self.environment.tunnels
        gauges = Gauges()
        gauges.replay(self.environment.replay.held)
        for cluster in list(self.mesh.clusters.values()):
            cluster.gauge(gauges)
        admission = self.environment.admission
        gauges.memory(resident_memory(), admission.memory)
        self._metrics.gauges = gauges
        table = self.environment.propagation
        self._metrics.propagated(table.found, table.ambiguous, table.unknown)
        return self._metrics

    def clusters(self) -> list[dict[str, Any]]:
        """Return clusters, endpoints and their connections."""
        return [cluster.statistics() for cluster in self.mesh.clusters.values()]

    def denials(self, number: str) -> list[dict[str, Any]]:
        """Return what was denied, the newest first; of one id, if it is given."""
        return self.environment.denials.found(number)

    def _sweep(self) -> None:
        environment = self.environment
        now = environment.now()
        self.mesh.sweep(now)
        self._sweeping = environment.loop.call_later(SWEEP, self._sweep)

    def _look(self) -> None:
        """Set the timer of the exchanges that are still under way (`policies/deadline.py`)."""
        environment = self.environment
        now = environment.now()
        for exchange in [one for one in environment.exchanges if one.timer is None]:
            exchange.on_look(now)
        self._looking = environment.loop.call_later(LOOK, self._look)

    def _look_at_memory(self) -> None:
        environment = self.environment
        self._relief.look(environment.now())
        self._relieving = environment.loop.call_later(MEMORY_LOOK, self._look_at_memory)

    # Drain and stop -------------------------------------------------------------------------------

    async def retreat(self) -> None:
        """Accept no more."""
        self.mesh.drain()

    async def drain(self) -> None:
        """Accept no more and wait for what runs, up to the drain time."""
        environment, mesh = self.environment, self.mesh
        mesh.drain()
        log.info(
            "draining: %d requests under way, %d connections",
            len(environment.exchanges), mesh.connections,
        )  # fmt: skip
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(environment.drain_seconds):
                while not self._hurried and (environment.exchanges or mesh.connections):
                    await asyncio.sleep(DRAIN_LOOK)
        if environment.exchanges:
            log.warning("not drained in time: %d requests cut", len(environment.exchanges))
        if mesh.connections:
            log.info("not drained in time: %d connections closed", mesh.connections)

    def hurry(self) -> None:
        """Drain no longer: whoever asked a second time means now."""
        self._hurried = True

    async def close(self) -> None:
        """End everything."""
        for timer in (self._sweeping, self._looking, self._relieving):
            if timer is not None:
                timer.cancel()
        self._heart.stop()
        self.mesh.close()

"""The process around listeners and clusters, inside a test's own loop."""

import asyncio
import ssl
import time
from collections.abc import Callable

from meshproxy.downstream.admission import Admission
from meshproxy.downstream.handshakes import Handshakes
from meshproxy.downstream.sockets import Sockets
from meshproxy.neighbours import Surroundings
from meshproxy.policies.propagation import Propagation
from meshproxy.policies.replay import ReplayMemory
from meshproxy.telemetry.denials import Denials
from meshproxy.telemetry.metrics import ConnectionSeries, Metrics
from meshproxy.timer_wheel import TimerWheel
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.tcp import TcpConnection


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `condition` holds; it is asked again after each turn of the loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Environment(Surroundings):
    """
    Attributes:
        server_context, client_context: None
            until the test sets them: no certificate yet.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.workload = "default/catalog"
        self.version = "v1"
        self.workers = 1
        self.identity = "spiffe://test.mesh/ns/default/sa/catalog"
        self.trust_domain = "test.mesh"
        self.metrics = Metrics()
        self.exchanges = set()
        self.tunnels = 0
        self.tokens = None
        self.propagation = Propagation()
        self.replay = ReplayMemory(1 << 20)
        self.now = time.monotonic
        self.wall: Callable[[], float] = time.time
        self.random = lambda: 0.5
        self.timers = TimerWheel(self.now, self.loop.call_later)
        self.server_context: ssl.SSLContext | None = None
        self.client_context: ssl.SSLContext | None = None
        self.sockets = Sockets()
        self.admission = Admission(1000, 0)
        self.handshakes = Handshakes(self.loop)
        self.drain_seconds = 5.0
        self.half_closing = False
        self.revoked: frozenset[str] = frozenset()
        self.listening: frozenset[tuple[str, int]] = frozenset()
        self.denials = Denials(self.now, self.wall)
        self.pools: set[Pool] = set()
        self.dialled: set[TcpConnection] = set()
        self.refusals: list[tuple[str, str]] = []
        self.failed_handshakes: list[str] = []

    @property
    def surroundings(self) -> Surroundings:
        return self

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(seconds, callback)

    def retried(self, service: str, reason: str) -> None:
        self.metrics.retried(service, reason)

    def retry_skipped(self, service: str, reason: str) -> None:
        self.metrics.retry_skipped(service, reason)

    def hedged(self, service: str) -> None:
        self.metrics.hedged(service)

    def hedge_won(self, service: str) -> None:
        self.metrics.hedge_won(service)

    def refused(self, direction: str, code: str) -> None:
        self.refusals.append((direction, code))

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
        self.failed_handshakes.append(reason)

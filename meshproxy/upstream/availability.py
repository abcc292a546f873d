"""
Which endpoints of a cluster may be called: those in service, by passive and by active signs.

    in service   nothing is known against it
    ejected      its answers made it an outlier (`policies/outlier_detection.py`)
    probation    its ejection is over, and one request at a time finds out whether it is well
    unhealthy    it failed its health checks (`health_check.py`)

What comes out is a tuple, which the cluster hands to its load balancer.  A change of state makes
another tuple; nothing of this is looked at while all is well.

**Panic.**  When fewer than `panic_percent` of the endpoints are left, all are used, whatever is known
against them: either what we know is wrong, or the few that are left would break down under the load
of all, and then there would be none (Envoy's panic threshold).  At 0 there is no panic, and with
nobody left requests are refused.  Nor is there any while far endpoints can bear what near ones
cannot (`policies/load_balancing/locality.py`): a zone that is down is no reason to call it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from meshproxy.contract.policies import OutlierSpec
from meshproxy.policies.outlier_detection import (
    EJECTED,
    IN_SERVICE,
    NEVER,
    PROBATION,
    Host,
    OutlierDetection,
)
from meshproxy.telemetry.metrics import Metrics

log = logging.getLogger("meshproxy.upstream")

UNHEALTHY = "unhealthy"
STATES = (IN_SERVICE, EJECTED, PROBATION, UNHEALTHY)


class Environment(Protocol):
    """What this needs of the process."""

    loop: asyncio.AbstractEventLoop
    metrics: Metrics
    now: Callable[[], float]


class Endpoint(Protocol):
    """
    One server.

    Attributes:
        healthy: What its health checks say; True without any.
        host: What its answers say.
        latency: As measured (`policies/load_balancing/peak_ewma.py`); 0.0 while nothing is known.
        weight: Without one, it is not counted.
    """

    healthy: bool
    host: Host
    latency: float
    weight: int


E = TypeVar("E", bound=Endpoint)


class Availability:
    """
    Attributes:
        detection: None where outliers are not looked for.
        panicking: All are used, whatever is known against them.
    """

    __slots__ = (
        "_cluster",
        "_endpoints",
        "_environment",
        "_restate",
        "_timer",
        "_timer_due",
        "detection",
        "panicking",
    )

    def __init__(self, cluster: str, environment: Environment, restate: Callable[[], None]) -> None:
        """Call `restate` whenever `among` may give another answer."""
        self._cluster = cluster
        self._environment = environment
        self._restate = restate
        self._endpoints: Sequence[Endpoint] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        self.detection: OutlierDetection | None = None
        self.panicking = False

    def adopt(self, spec: OutlierSpec | None, endpoints: Sequence[Endpoint]) -> None:
        """Watch these endpoints; what is known about those that stay, stays."""
        self._endpoints = endpoints
        hosts = [endpoint.host for endpoint in endpoints if endpoint.weight]
        now = self._environment.now()
        if spec is None:
            self.detection = None
            for host in hosts:
                host.forget()
        else:
            if self.detection is None:
                self.detection = OutlierDetection(spec, self._on_changed, self._on_prevented)
            self.detection.obey(spec, hosts, now)
        self._arm()

    def among(
        self,
        endpoints: Sequence[E],
        panic_percent: float,
        bearable: Callable[[Sequence[E], Sequence[E]], bool] = lambda _all, _left: False,
    ) -> tuple[E, ...]:
        """
        Return those that may be called.

        Args:
            endpoints: All.
            panic_percent: See above.
            bearable: Says whether those that are left, few as they may be, can do the work of all.
        """
        usable = tuple(one for one in endpoints if one.healthy and one.host.state is not EJECTED)
        weighted = sum(1 for one in endpoints if one.weight)
        left = sum(1 for one in usable if one.weight)
        panicking = left * 100 < panic_percent * weighted and not bearable(endpoints, usable)
        if panicking != self.panicking:
            self.panicking = panicking
            if panicking:
                log.warning(
                    "%s: only %d of %d endpoints are left, so all are used",
                    self._cluster, left, weighted,
                )  # fmt: skip
            else:
                log.info("%s: enough endpoints are in service again", self._cluster)
        return tuple(endpoints) if panicking else usable

    # What the detector says -----------------------------------------------------------------------

    def _on_changed(self, host: Host, why: str) -> None:
        if host.state is EJECTED:
            seconds = host.until - host.since
            log.warning("%s: %s ejected for %g s: %s", self._cluster, host.name, seconds, why)
            self._environment.metrics.ejected(self._cluster, why)
        else:
            log.info("%s: %s %s: %s", self._cluster, host.name, host.state, why)
        if host.state is PROBATION:
            for endpoint in self._endpoints:
                if endpoint.host is host:  # or memories would keep the balancer from asking it
                    endpoint.latency = 0.0
        self._arm()
        self._restate()

    def _on_prevented(self, host: Host, why: str) -> None:
        log.debug("%s: %s not ejected, others are: %s", self._cluster, host.name, why)
        self._environment.metrics.ejection_prevented(self._cluster, why)

    # Time -----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have ourselves called when something is due."""
        due = NEVER if self.detection is None else self.detection.due
        if due == self._timer_due:
            return
        self.close()
        if due != NEVER:
            self._timer_due = due
            wait = max(0.0, due - self._environment.now())
            self._timer = self._environment.loop.call_later(wait, self._tick)

    def _tick(self) -> None:
        self._timer_due = NEVER
        if self.detection is not None:
            self.detection.tick(self._environment.now())
        self._arm()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_due = NEVER

    # For /clusters and /metrics -------------------------------------------------------------------

    @staticmethod
    def state(endpoint: Endpoint) -> str:
        return endpoint.host.state if endpoint.healthy else UNHEALTHY

    def states(self) -> dict[str, int]:
        """Return how many endpoints are in which state."""
        counts = dict.fromkeys(STATES, 0)
        for endpoint in self._endpoints:
            counts[self.state(endpoint)] += 1
        return counts

    def statistics(self, endpoint: Endpoint) -> dict[str, Any]:
        told: dict[str, Any] = {"state": self.state(endpoint)}
        host = endpoint.host
        if self.detection is not None:
            told["ejections"] = host.ejections
            if host.state is EJECTED:
                left = host.until - self._environment.now()
                told["ejected_for_seconds"] = round(max(0.0, left), 3)
        return told

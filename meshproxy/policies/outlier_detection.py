"""
Outlier detection: take an endpoint out of service that behaves unlike the others.

Theory of operation
===================

Of three servers one answers 503 to everything.  Nothing is wrong with the service, yet a third of
its requests fail, and more than a third get there: failing is quick, so the broken one always looks
idle.  Its callers can see what no health check sees, how *real* requests fare, so each proxy judges
for itself, from its own traffic ("passive").

**What makes an outlier.**  In a row: 5xx answers, gateway errors (502, 503, 504 and what gRPC calls
so), local failures (no connection, reset, timeout); one success begins the count anew.  At the end
of each interval, by statistics: a success rate below the mean of all by so many standard
deviations, or a share of failures above a threshold.  (Envoy's algorithms and its names.)

    in service ──── an outlier, and ejecting it is allowed ────▶ ejected
        ▲                                                          │ time over
        │ the probe succeeded                                      ▼
        └───────────────────────────────────────────────────── probation
                                                                   │ the probe failed
                                              ejected ◀────────────┘ (for longer)

**How long.**  `base_ejection` times the number of ejections so far, up to `max_ejection`.  Each
interval in service takes one off that number, so an old story is forgotten.

**Probation.**  Envoy returns an endpoint to full service when its time is over, and if it is still
broken, some requests fail again before that is noticed.  Here (as in Linkerd) one request at a time
is let through; its outcome decides.  A probe that does not return (a stream that lasts) holds the
place for `base_ejection` at most; one whose client leaves is given back.

**Who watches the watchman.**  If everything fails, the fault is elsewhere (our network, a shared
database), and to eject everybody would make it an outage.  So at most `max_ejected_percent` of the
endpoints are out, but one may always be, and never the last one.  (The panic threshold, for when
health checks take out the others, is applied in `upstream/cluster.py`: who is out is asked there.)

Only what began in the present state counts: what was on its way to an endpoint when it was ejected
says nothing about how it is when it comes back.

Called from: `Endpoint.judge`, `Cluster.pick`, the cluster's timer.
"""

from collections.abc import Callable, Iterable
from math import floor, sqrt
from typing import Final

from meshproxy.contract.policies import OutlierSpec

IN_SERVICE: Final = "in-service"
EJECTED: Final = "ejected"
PROBATION: Final = "probation"

NEVER: Final = float("inf")


class Host:
    """
    What is known about one endpoint.

    Attributes:
        name: For logs.
        state: `IN_SERVICE`, `EJECTED` or `PROBATION`.
        since: When it came into that state.
        until: When the ejection, or the patience with a probe, is over.
        ejections: How often it was ejected, less what was forgiven.
        answers_5xx, gateway_errors, local_failures: In a row.
        requests, failures: Of the present interval.
        remarkable: A success is worth a second look: something has failed before.
    """

    __slots__ = (
        "answers_5xx",
        "ejections",
        "failures",
        "gateway_errors",
        "local_failures",
        "name",
        "remarkable",
        "requests",
        "since",
        "state",
        "until",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.state = IN_SERVICE
        self.since = float("-inf")
        self.until = 0.0
        self.ejections = 0
        self.requests = 0
        self.failures = 0
        self.begin_anew()

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.state}, {self.ejections} ejections>"

    def forget(self) -> None:
        """Nothing is known: nobody watches any more."""
        self.state = IN_SERVICE
        self.ejections = self.requests = self.failures = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Nothing has failed in a row."""
        self.answers_5xx = self.gateway_errors = self.local_failures = 0
        self.remarkable = self.state is not IN_SERVICE


class OutlierDetection:
    """
    Watches the endpoints of one cluster.

    Attributes:
        spec: As configured.
        hosts: Those that are watched.
        out: How many of them are not in service.
    """

    __slots__ = ("_changed", "_interval_ends", "_prevented", "hosts", "out", "spec")

    def __init__(
        self,
        spec: OutlierSpec,
        changed: Callable[[Host, str], None],
        prevented: Callable[[Host, str], None],
    ) -> None:
        """
        Args:
            spec: When to eject, and for how long.
            changed: Called after a host has come into another state, with the reason.
            prevented: Called where one would have been ejected, were it allowed.
        """
        self.spec = spec
        self.hosts: tuple[Host, ...] = ()
        self.out = 0
        self._changed = changed
        self._prevented = prevented
        self._interval_ends = NEVER

    def obey(self, spec: OutlierSpec, hosts: Iterable[Host], now: float) -> None:
        """Watch these from now on; what is known about those that stay, stays."""
        self.spec = spec
        self.hosts = tuple(hosts)
        self.out = sum(host.state is not IN_SERVICE for host in self.hosts)
        # Of fewer, fewer may be out: whose time is over first comes back first.
        for host in sorted(self.hosts, key=lambda host: host.until):
            if host.state is not IN_SERVICE and self.out > self._allowed:
                self._return(host, now, "too many are out")
        self._schedule(now)

    # How it went ----------------------------------------------------------------------------------

    def succeeded(self, host: Host, began: float, now: float) -> None:
        """Learn of a success of a `remarkable` host; of others it need not be told."""
        if began < host.since:
            return
        if host.state is IN_SERVICE:
            host.begin_anew()
        elif host.state is PROBATION:
            self._return(host, now, "a probe succeeded")

    def answered_5xx(self, host: Host, *, gateway: bool, began: float, now: float) -> None:
        """Learn of an answer that says that the server could not; `gateway`: that nobody was there."""
        host.failures += 1
        if not self._counts(host, began):
            return
        spec = self.spec
        if host.state is PROBATION:
            if gateway or self._minds_500:
                self._eject(host, now, "probe-failed")
            else:
                self._return(host, now, "a probe was answered")
            return
        host.answers_5xx += 1
        host.gateway_errors = host.gateway_errors + 1 if gateway else 0
        host.local_failures = 0
        host.remarkable = True
        if _reached(host.gateway_errors, spec.consecutive_gateway_errors):
            self._consider(host, now, "consecutive-gateway-errors")
        elif _reached(host.answers_5xx, spec.consecutive_5xx):
            self._consider(host, now, "consecutive-5xx")

    def failed_locally(self, host: Host, *, began: float, now: float) -> None:
        """Learn that there was no answer."""
        host.failures += 1
        if not self._counts(host, began):
            return
        if host.state is PROBATION:
            self._eject(host, now, "probe-failed")
            return
        host.local_failures += 1
        host.remarkable = True
        if _reached(host.local_failures, self.spec.consecutive_local_failures):
            self._consider(host, now, "consecutive-local-failures")

    def given_up(self, host: Host, *, began: float) -> None:
        """Learn that a request has proved nothing: if it was a probe, another may be one."""
        if host.state is PROBATION and began >= host.since:
            host.until = 0.0

    @staticmethod
    def _counts(host: Host, began: float) -> bool:
        return began >= host.since and host.state is not EJECTED

    @property
    def _minds_500(self) -> bool:
        spec = self.spec
        return bool(spec.consecutive_5xx or spec.success_rate or spec.failure_percent is not None)

    # Probation ------------------------------------------------------------------------------------

    def probe(self, host: Host, now: float) -> bool:
        """Say whether a request to a host on probation may be its probe."""
        if now < host.until:
            return False
        host.since = now  # what was sent before has nothing to say any more
        host.until = now + self.spec.base_ejection / 1000
        return True

    # Ejection -------------------------------------------------------------------------------------

    @property
    def _allowed(self) -> int:
        """How many may be out."""
        count = len(self.hosts)
        share = floor(count * self.spec.max_ejected_percent / 100)
        return min(max(share, 1), count - 1) if count else 0

    def _ejected(self) -> list[Host]:
        return [host for host in self.hosts if host.state is EJECTED]

    def _consider(self, host: Host, now: float, why: str) -> None:
        """Eject a host in service, if that is allowed."""
        if self.out < self._allowed:
            self.out += 1
            self._eject(host, now, why)
        else:
            host.begin_anew()
            self._prevented(host, why)

    def _eject(self, host: Host, now: float, why: str) -> None:
        spec = self.spec
        host.ejections += 1
        longest = max(spec.max_ejection, spec.base_ejection)
        host.state = EJECTED
        host.since = now
        host.until = now + min(spec.base_ejection * host.ejections, longest) / 1000
        host.begin_anew()
        self._schedule(now)
        self._changed(host, why)

    def _return(self, host: Host, now: float, why: str) -> None:
        self.out -= 1
        host.state = IN_SERVICE
        host.since = now
        host.requests = host.failures = 0
        host.begin_anew()
        self._schedule(now)
        self._changed(host, why)

    # As time goes by ------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When to call `tick` next; `NEVER` while nothing is expected."""
        return min([self._interval_ends, *(host.until for host in self._ejected())])

    def tick(self, now: float) -> None:
        """Do what time has brought."""
        for host in self._ejected():
            if host.until <= now:
                host.state = PROBATION
                host.since = now
                host.until = 0.0
                self._changed(host, "its time is over")
        if self._interval_ends <= now:
            self._interval_ends = NEVER
            self._end_interval(now)
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        """See to it that there is an interval where one is needed."""
        needed = self._statistics or any(host.ejections for host in self.hosts)
        if not needed:
            self._interval_ends = NEVER
        elif self._interval_ends == NEVER:
            self._interval_ends = now + self.spec.interval / 1000

    @property
    def _statistics(self) -> bool:
        return self.spec.success_rate or self.spec.failure_percent is not None

    def _end_interval(self, now: float) -> None:
        spec = self.spec
        for host in self.hosts:
            if host.state is IN_SERVICE and host.ejections:
                host.ejections -= 1
        busy = [
            host
            for host in self.hosts
            if host.state is IN_SERVICE and host.requests >= spec.min_requests
        ]
        if self._statistics and len(busy) >= spec.min_hosts:
            for host, why in self._outliers(busy):
                if host.state is IN_SERVICE:
                    self._consider(host, now, why)
        for host in self.hosts:
            host.requests = host.failures = 0

    def _outliers(self, busy: list[Host]) -> list[tuple[Host, str]]:
        """Return whom the statistics show to be unlike the others, the worst first."""
        spec = self.spec
        rates = [1 - host.failures / host.requests for host in busy]
        found: list[tuple[float, Host, str]] = []
        if spec.success_rate:
            mean = sum(rates) / len(rates)
            deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
            threshold = mean - deviation * spec.stdev_factor / 1000
            found += [
                (rate, host, "success-rate")
                for rate, host in zip(rates, busy, strict=True)
                if rate < threshold
            ]
        if spec.failure_percent is not None:
            found += [
                (rate, host, "failure-percentage")
                for rate, host in zip(rates, busy, strict=True)
                if host.failures and (1 - rate) * 100 >= spec.failure_percent
            ]
        found.sort(key=lambda one: one[0])
        return [(host, why) for _, host, why in found]


def _reached(count: int, threshold: int | None) -> bool:
    return threshold is not None and count >= threshold

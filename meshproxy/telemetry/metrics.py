"""
Counting what happens, and telling Prometheus.

The two halves differ in pace.  Counting happens on the path of every request, so it is done in
plain integers of objects that whoever counts holds on to: `Metrics.requests` is asked once for a
series, `RequestSeries.record` then costs a few hundred nanoseconds.  Telling happens every few
seconds: `Metrics.render` reads the integers and leaves the text format to prometheus_client, which
is loaded only then.

**Cardinality is bounded.**  Label values come from configuration or from verified identities,
never from what a client wrote.  Yet a large mesh, or a peer that answers with every status code
there is, could still make more series than anybody wants to pay for: above a cap, what is new is
counted under the label value ``__overflow__``, so sums stay right.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from meshproxy import __version__
from meshproxy.neighbours import Series

from .counts import Counts, RequestCounts, RequestKey, TcpCounts, TcpKey
from .gauges import Gauges
from .loop_lag import BOUNDS as LAG_BOUNDS
from .loop_lag import LoopLag

if TYPE_CHECKING:
    from prometheus_client.core import Metric

OVERFLOW: Final = "__overflow__"
MOST_CLIENTS: Final = 256
"""Series of plaintext connections: a port may be called from any number of addresses."""
BOUNDS: Final[tuple[float, ...]] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Upper bounds of the histogram's buckets, in seconds; what is slower goes to ``+Inf``."""
_LE: Final = (*(str(bound) for bound in BOUNDS), "+Inf")
_LAG_LE: Final = (*(str(bound) for bound in LAG_BOUNDS), "+Inf")

_OUTCOMES_PER_SERIES: Final = 64
_LABELS: Final = ("direction", "source", "destination", "version", "route", "protocol")

GrpcLabels = tuple[str, ...]
"""direction, source, destination, route, status"""


# Counting -----------------------------------------------------------------------------------------


class RequestSeries(Series):
    """
    The requests that share a source, a destination and a route.

    Attributes:
        outcomes: How many ended with a status code and a response flag.
        buckets: How many took up to each of `BOUNDS` and no less than the bound before; the
            last for those slower than all.
        seconds: How long all of them took together.
    """

    __slots__ = ("buckets", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int | str, str], int] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def record(self, status: int, flag: str, seconds: float) -> None:
        """Count one request that is over; `flag` is a refusal's, or ``-``."""
        outcomes = self.outcomes
        key: Any = (status, flag)  # `Any`: compiled, it is made once and not at each use
        try:
            outcomes[key] += 1
        except KeyError:
            self._first(status, flag)
        # Most requests take little, so this ends sooner than a search in halves.
        place = 0
        for bound in BOUNDS:
            if seconds <= bound:
                break
            place += 1
        self.buckets[place] += 1
        self.seconds += seconds

    def _first(self, status: int, flag: str) -> None:
        # The service chooses the status, and there are hundreds.
        key: tuple[int | str, str] = (status, flag)
        if len(self.outcomes) >= _OUTCOMES_PER_SERIES:
            key = (OVERFLOW, OVERFLOW)
        self.outcomes[key] = self.outcomes.get(key, 0) + 1


class ConnectionSeries:
    """The connections of one side and direction; who opens or closes one adds 1."""

    __slots__ = ("closed", "opened")

    def __init__(self) -> None:
        self.opened = 0
        self.closed = 0

    @property
    def active(self) -> int:
        return self.opened - self.closed


class TcpSeries:
    """
    The opaque connections that share a source, a destination and a route.

    Attributes:
        opened: Connections that began.
        received: Bytes from downstream, as they come.
        sent: Bytes to downstream.
        flags: How many ended with a response flag.
    """

    __slots__ = ("flags", "opened", "received", "sent")

    def __init__(self) -> None:
        self.opened = 0
        self.received = 0
        self.sent = 0
        self.flags: dict[str, int] = {}

    def ended(self, flag: str) -> None:
        """Count one connection that is over; `flag` is a refusal's, or ``-``."""
        self.flags[flag] = self.flags.get(flag, 0) + 1

    def add(self, opened: int, received: int, sent: int, flags: Mapping[str, int]) -> None:
        """Count what another process has counted."""
        self.opened += opened
        self.received += received
        self.sent += sent
        for flag, count in flags.items():
            self.flags[flag] = self.flags.get(flag, 0) + count

    @property
    def active(self) -> int:
        return self.opened - sum(self.flags.values())


class _Counter:
    """Counts by labels, up to `cap` combinations of them."""

    __slots__ = ("_cap", "_overflow", "counts")

    def __init__(self, labels: int, cap: int) -> None:
        self._cap = cap
        self._overflow = (OVERFLOW,) * labels
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, count: int = 1) -> None:
        self.count(labels, count)

    def count(self, labels: tuple[str, ...], more: int = 1) -> None:
        """As `add`, for labels that have been put together before."""
        try:
            self.counts[labels] += more
        except KeyError:
            if len(self.counts) >= self._cap:
                labels = self._overflow
            self.counts[labels] = self.counts.get(labels, 0) + more


class Metrics:
    """
    Everything that one proxy counts, and the state that others note here.

    Attributes:
        config_version: Version of the snapshot in force; empty before the first.
        config_applied_at: When it came into force, in seconds since the epoch; 0 before.
        config_refused: Updates that were refused.
        connected: Whether the discovery stream stands.
        tunnels: How many exchanges have switched protocols and are still open.
        certificate_not_after: When the certificate ends, in seconds since the epoch; 0 without.
        certificate_age: Seconds since it was received.
        certificate_renewals: How many have been received.
        certificate_failures: How many attempts to get one have failed.
        certificate_worry: It is three quarters over, and was not renewed.
        gauges: As last read.
        loop_lag: How late the event loop is; of workers, of all their loops.
    """

    def __init__(self, max_series: int = 2_000) -> None:
        self.config_version = ""
        self.config_applied_at = 0.0
        self.config_refused = 0
        self.connected = False
        self.tunnels = 0
        self.certificate_not_after = 0.0
        self.certificate_age = 0.0
        self.certificate_renewals = 0
        self.certificate_failures = 0
        self.certificate_worry = False
        self.gauges = Gauges()
        self.loop_lag = LoopLag()
        self._max_series = max_series
        self._requests: dict[RequestKey, RequestSeries] = {}
        self._overflow: RequestSeries | None = None
        self._tcp: dict[TcpKey, TcpSeries] = {}
        self._connections: dict[tuple[str, str], ConnectionSeries] = {}
        self._counters: dict[str, _Counter] = {}
        self._refusals = self._counter("refusals", 2, 256)
        self._connections_refused = self._counter("connections_refused", 2, 32)
        self._grpc_ended = self._counter("grpc_ended", 5, max_series)
        self._handshake_failures = self._counter("handshake_failures", 2, 64)
        self._retries = self._counter("retries", 2, max_series)
        self._retries_skipped = self._counter("retries_skipped", 2, max_series)
        self._hedges = self._counter("hedges", 1, max_series)
        self._hedges_won = self._counter("hedges_won", 1, max_series)
        self._rate_limited = self._counter("rate_limited", 3, max_series)
        self._faults = self._counter("faults", 3, max_series)
        self._shed = self._counter("shed", 2, max_series)
        self._mirrored = self._counter("mirrored", 2, max_series)
        self._cancelled = self._counter("cancelled", 1, max_series)
        self._overflows = self._counter("overflows", 3, max_series)
        self._breaker_transitions = self._counter("breaker_transitions", 2, max_series)
        self._ejections = self._counter("ejections", 2, max_series)
        self._ejections_prevented = self._counter("ejections_prevented", 2, max_series)
        self._health_checks = self._counter("health_checks", 2, max_series)
        self._propagation = self._counter("propagation", 1, 8)
        self._plaintext = self._counter("plaintext", 3, max_series)
        self._plaintext_closed = self._counter("plaintext_closed", 2, max_series)
        self._denied = self._counter("denied", 1, 256)
        self._audited = self._counter("audited", 1, 256)

    def _counter(self, name: str, labels: int, cap: int) -> _Counter:
        """Return a counter that the sum of several processes knows by `name`."""
        counter = self._counters[name] = _Counter(labels, cap)
        return counter

    def requests(
        self,
        direction: str,
        source: str,
        destination: str,
        version: str,
        route: str,
        protocol: str,
    ) -> RequestSeries:
        """Return the series of these labels; the same object for the same labels."""
        key = (direction, source, destination, version, route, protocol)
        series = self._requests.get(key)
        if series is None:
            if len(self._requests) >= self._max_series:
                return self._overflow_series()
            series = self._requests[key] = RequestSeries()
        return series

    def tcp(self, direction: str, source: str, destination: str, route: str) -> TcpSeries:
        """Return the series of opaque connections; the same object for the same labels."""
        key = (direction, source, destination, route)
        if key not in self._tcp and len(self._tcp) >= self._max_series:
            key = (OVERFLOW,) * 4
        return self._tcp.setdefault(key, TcpSeries())

    def _overflow_series(self) -> RequestSeries:
        if self._overflow is None:
            self._overflow = RequestSeries()
        return self._overflow

    def refused(self, direction: str, code: str) -> None:
        """Count a response that the proxy made itself; `code` is one of `refusal.py`."""
        self._refusals.add(direction, code)

    def connection_refused(self, direction: str, reason: str) -> None:
        """Count a connection that was not taken; `reason` is one of `downstream.listener.REASONS`."""
        self._connections_refused.add(direction, reason)

    def grpc_ended(self, labels: GrpcLabels) -> None:
        """Count a gRPC call by its status, which is not that of HTTP."""
        self._grpc_ended.count(labels)

    def connection(self, side: str, direction: str) -> ConnectionSeries:
        """Return the series of the ``downstream`` or ``upstream`` side."""
        series = self._connections.get((side, direction))
        if series is None:
            series = self._connections[side, direction] = ConnectionSeries()
        return series

    def handshake_failed(self, side: str, reason: str) -> None:
        """Count a TLS handshake that failed; `reason` is one of ours, not the peer's words."""
        self._handshake_failures.add(side, reason)

    def plaintext_opened(self, port: str, client: str) -> tuple[str, str]:
        """
        Count a connection without mutual TLS that was accepted where mutual TLS is possible.

        Returns:
            What to tell `plaintext_closed` when it ends: also addresses are as many as one likes.
        """
        labels = self._plaintext_labels(port, client, "accepted")
        self._plaintext.add(*labels)
        return labels[:2]

    def plaintext_closed(self, port: str, client: str) -> None:
        self._plaintext_closed.add(port, client)

    def plaintext_refused(self, port: str, client: str) -> None:
        """Count one that was refused because mutual TLS is demanded."""
        self._plaintext.add(*self._plaintext_labels(port, client, "refused"))

    def _plaintext_labels(self, port: str, client: str, verdict: str) -> tuple[str, str, str]:
        labels = (port, client, verdict)
        if labels in self._plaintext.counts or len(self._plaintext.counts) < MOST_CLIENTS:
            return labels
        return (OVERFLOW, OVERFLOW, verdict)

    def retried(self, cluster: str, reason: str) -> None:
        self._retries.add(cluster, reason)

    def retry_skipped(self, cluster: str, reason: str) -> None:
        """Count a retry that was possible but not made, and why."""
        self._retries_skipped.add(cluster, reason)

    def hedged(self, cluster: str) -> None:
        """Count a second attempt beside a slow first one."""
        self._hedges.add(cluster)

    def hedge_won(self, cluster: str) -> None:
        """Count one whose answer was the first."""
        self._hedges_won.add(cluster)

    def propagated(self, found: int, ambiguous: int, unknown: int) -> None:
        """Note how many calls have been found to be made for an inbound request, so far."""
        self._propagation.counts = {
            ("found",): found,
            ("ambiguous",): ambiguous,
            ("unknown",): unknown,
        }

    def cancelled(self, service: str) -> None:
        """Count a call that was given up because the request it was made for had lost its client."""
        self._cancelled.add(service)

    def rate_limited(self, direction: str, limit: str, why: str) -> None:
        """Count a request that a rate limit refused: its `limit`, or an `overflow` of buckets."""
        self._rate_limited.add(direction, limit, why)

    def fault_injected(self, direction: str, fault: str, kind: str) -> None:
        """Count a `delay` or `abort` that was made on purpose."""
        self._faults.add(direction, fault, kind)

    def shed(self, service: str, criticality: str) -> None:
        """Count a request that was turned away because the app has as many as it can bear."""
        self._shed.add(service, criticality)

    def mirrored(self, service: str, outcome: str) -> None:
        """Count a copy of a request, by what became of it."""
        self._mirrored.add(service, outcome)

    def overflowed(self, cluster: str, scope: str, limit: str) -> None:
        """Count something that a limit has turned away; `scope` is `cluster` or `endpoint`."""
        self._overflows.add(cluster, scope, limit)

    def breaker_changed(self, cluster: str, state: str) -> None:
        """Count a circuit breaker that has come into a state."""
        self._breaker_transitions.add(cluster, state)

    def ejected(self, cluster: str, reason: str) -> None:
        """Count an outlier that was taken out of service."""
        self._ejections.add(cluster, reason)

    def ejection_prevented(self, cluster: str, reason: str) -> None:
        """Count an outlier that stayed because enough others are out."""
        self._ejections_prevented.add(cluster, reason)

    def health_checked(self, cluster: str, result: str) -> None:
        """Count a health check; `result` is `healthy`, `unhealthy`, or why there was no answer."""
        self._health_checks.add(cluster, result)

    def access_denied(self, policy: str) -> None:
        """Count what a policy has denied; ``-`` where no rule has allowed it."""
        self._denied.add(policy or "-")

    def access_audited(self, policy: str) -> None:
        """Count what a policy would have denied, if it were not for audit."""
        self._audited.add(policy)

    # One proxy of several processes ---------------------------------------------------------------

    def counts(self) -> Counts:
        """Return everything that was counted (not the state that others note here)."""
        requests = [
            RequestCounts(
                None if series is self._overflow else key,
                [(code, flag, count) for (code, flag), count in series.outcomes.items()],
                series.buckets,
                series.seconds,
            )
            for key, series in self.all_requests()
        ]
        connections = [
            (side, direction, series.opened, series.closed)
            for (side, direction), series in self._connections.items()
        ]
        counters = {name: list(one.counts.items()) for name, one in self._counters.items()}
        tcp = [
            TcpCounts(key, series.opened, series.received, series.sent, dict(series.flags))
            for key, series in self._tcp.items()
        ]
        return Counts(
            requests=requests,
            tcp=tcp,
            connections=connections,
            tunnels=self.tunnels,
            counters=counters,
            gauges=self.gauges.readings(),
            loop_lag=(self.loop_lag.buckets, self.loop_lag.seconds),
        )

    def note(self, other: "Metrics") -> None:
        """Take over the state of the configuration that another one notes."""
        self.config_version = other.config_version
        self.config_applied_at = other.config_applied_at
        self.config_refused = other.config_refused

    def add(self, counts: Counts) -> None:
        """Count what another process has counted."""
        for counted in counts.requests:
            series = self._overflow_series() if counted.key is None else self.requests(*counted.key)
            for code, flag, count in counted.outcomes:
                series.outcomes[code, flag] = series.outcomes.get((code, flag), 0) + count
            series.buckets = [a + b for a, b in zip(series.buckets, counted.buckets, strict=True)]
            series.seconds += counted.seconds
        for tcp in counts.tcp:
            self.tcp(*tcp.key).add(tcp.opened, tcp.received, tcp.sent, tcp.flags)
        for side, direction, opened, closed in counts.connections:
            connection = self.connection(side, direction)
            connection.opened += opened
            connection.closed += closed
        self.tunnels += counts.tunnels
        self.gauges.add(counts.gauges)
        if counts.loop_lag is not None:
            self.loop_lag.add(*counts.loop_lag)
        for name, counted_by_labels in counts.counters.items():
            counter = self._counters[name]
            for labels, count in counted_by_labels:
                counter.add(*labels, count=count)

    # Telling --------------------------------------------------------------------------------------

    def render(self, now: float) -> bytes:
        """
        Return all metrics in the Prometheus text format, version 0.0.4.

        With thousands of series this takes a good part of a second, so it may run in another
        thread: everything that grows is copied in one step before it is walked.

        Args:
            now: Seconds since the epoch.
        """
        from prometheus_client import CollectorRegistry, generate_latest

        # A registry of its own: the default one would add figures of the process that an
        # operator's node exporter has already.
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self, now))
        return generate_latest(registry)

    def all_requests(self) -> Iterator[tuple[RequestKey, RequestSeries]]:
        """Yield every series with its labels, the one for what exceeded the cap last."""
        yield from list(self._requests.items())
        if self._overflow is not None:
            yield (OVERFLOW,) * 6, self._overflow

    def _collect(self, now: float) -> Iterator["Metric"]:
        yield from self._collect_requests()
        yield from self._collect_tcp()
        yield from self._collect_counters()
        yield from self._collect_connections()
        yield from self._collect_state(now)
        yield from self.gauges.collect()

    def _collect_requests(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        total = CounterMetricFamily(
            "mesh_requests",
            "Requests, by who called whom over which route, and how that ended.",
            labels=(*_LABELS, "code", "flag"),
        )
        # The histogram has no protocol label: series that differ in it alone are added up.
        merged: dict[tuple[str, ...], tuple[list[int], float]] = {}
        for key, series in self.all_requests():
            for (code, flag), count in list(series.outcomes.items()):
                total.add_metric((*key, str(code), flag), count)
            buckets, seconds = merged.get(key[:-1], ([0] * len(_LE), 0.0))
            summed = [a + b for a, b in zip(buckets, series.buckets, strict=True)]
            merged[key[:-1]] = (summed, seconds + series.seconds)
        yield total

        duration = HistogramMetricFamily(
            "mesh_request_duration_seconds",
            "From the head of the request to the end of the response.",
            labels=_LABELS[:-1],
        )
        for labels, (buckets, seconds) in merged.items():
            cumulative = list(zip(_LE, accumulate(buckets), strict=True))
            duration.add_metric(labels, cumulative, seconds)
        yield duration

    def _collect_tcp(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        labels = ("direction", "source", "destination", "route")
        total = CounterMetricFamily(
            "mesh_tcp_connections",
            "Opaque connections that ended, by how they did.",
            labels=(*labels, "flag"),
        )
        active = GaugeMetricFamily(
            "mesh_tcp_connections_active", "Opaque connections open now.", labels=labels
        )
        sent = CounterMetricFamily(
            "mesh_tcp_sent_bytes", "Bytes from endpoints to clients.", labels=labels
        )
        received = CounterMetricFamily(
            "mesh_tcp_received_bytes", "Bytes from clients to endpoints.", labels=labels
        )
        for key, series in list(self._tcp.items()):
            for flag, count in list(series.flags.items()):
                total.add_metric((*key, flag), count)
            active.add_metric(key, series.active)
            sent.add_metric(key, series.sent)
            received.add_metric(key, series.received)
        yield from (total, active, sent, received)

    def _collect_counters(self) -> Iterable["Metric"]:
        from prometheus_client.core import CounterMetricFamily

        for name, text, labels, counter in (
            (
                "mesh_refusals",
                "Responses that the proxy made itself, by refusal code.",
                ("direction", "code"),
                self._refusals,
            ),
            (
                "mesh_grpc_responses",
                "gRPC calls by their status; - for those that ended without one.",
                ("direction", "source", "destination", "route", "grpc_status"),
                self._grpc_ended,
            ),
            (
                "mesh_retries",
                "Further attempts that were made, by what made the one before fail.",
                ("cluster", "reason"),
                self._retries,
            ),
            (
                "mesh_retries_skipped",
                "Further attempts that were not made, by why not.",
                ("cluster", "reason"),
                self._retries_skipped,
            ),
            (
                "mesh_hedges",
                "Second attempts beside a slow first one.",
                ("cluster",),
                self._hedges,
            ),
            (
                "mesh_hedges_won",
                "Second attempts whose answer was the first.",
                ("cluster",),
                self._hedges_won,
            ),
            (
                "mesh_propagation",
                "Calls made while inbound requests of a trace were under way, by whether theirs was found.",
                ("result",),
                self._propagation,
            ),
            (
                "mesh_calls_cancelled",
                "Calls given up because the client of the request that they were made for had gone.",
                ("destination",),
                self._cancelled,
            ),
            (
                "mesh_rate_limited",
                "Requests that a rate limit refused, and whether for want of a bucket.",
                ("direction", "limit", "reason"),
                self._rate_limited,
            ),
            (
                "mesh_faults_injected",
                "Delays and aborts that were made on purpose.",
                ("direction", "fault", "kind"),
                self._faults,
            ),
            (
                "mesh_shed_requests",
                "Requests turned away because the app has as many as it can work on.",
                ("service", "criticality"),
                self._shed,
            ),
            (
                "mesh_authorization_denied",
                "Requests and opaque connections that a policy has denied; - where none allows them.",
                ("policy",),
                self._denied,
            ),
            (
                "mesh_authorization_audited",
                "Those that an AUDIT policy would have denied.",
                ("policy",),
                self._audited,
            ),
            (
                "mesh_mirrored_requests",
                "Copies of requests, by what became of them.",
                ("service", "outcome"),
                self._mirrored,
            ),
            (
                "mesh_overflows",
                "What a limit has turned away, by the limit and whose it is.",
                ("cluster", "scope", "limit"),
                self._overflows,
            ),
            (
                "mesh_circuit_breaker_transitions",
                "Changes of circuit breakers, by the state that they came into.",
                ("cluster", "state"),
                self._breaker_transitions,
            ),
            (
                "mesh_outlier_ejections",
                "Endpoints taken out of service for a while, by why.",
                ("cluster", "reason"),
                self._ejections,
            ),
            (
                "mesh_outlier_ejections_prevented",
                "Outliers that stayed in service because enough others are out.",
                ("cluster", "reason"),
                self._ejections_prevented,
            ),
            (
                "mesh_health_checks",
                "Health checks made, by what came of them.",
                ("cluster", "result"),
                self._health_checks,
            ),
            (
                "mesh_plaintext_connections",
                "Connections without mutual TLS to ports that can have it: who would not pass STRICT.",
                ("port", "client", "verdict"),
                self._plaintext,
            ),
            (
                "mesh_connections_refused",
                "Connections that were not taken because this proxy is overloaded, by what of.",
                ("direction", "reason"),
                self._connections_refused,
            ),
            (
                "mesh_tls_handshake_failures",
                "TLS handshakes that failed.",
                ("side", "reason"),
                self._handshake_failures,
            ),
        ):
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in list(counter.counts.items()):
                family.add_metric(values, count)
            yield family

    def _collect_connections(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        labels = ("side", "direction")
        opened = CounterMetricFamily(
            "mesh_connections_opened", "Connections opened.", labels=labels
        )
        active = GaugeMetricFamily(
            "mesh_connections_active", "Connections open now.", labels=labels
        )
        for key, series in list(self._connections.items()):
            opened.add_metric(key, series.opened)
            active.add_metric(key, series.active)
        yield opened
        yield active
        plaintext = GaugeMetricFamily(
            "mesh_plaintext_connections_active",
            "Those without mutual TLS that are open now.",
            labels=("port", "client"),
        )
        closed = dict(self._plaintext_closed.counts)
        for (port, client, verdict), count in list(self._plaintext.counts.items()):
            if verdict == "accepted":
                plaintext.add_metric((port, client), count - closed.get((port, client), 0))
        yield plaintext

    def _collect_state(self, now: float) -> Iterator["Metric"]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        build = GaugeMetricFamily(
            "mesh_build_info", "Which program this is.", labels=("version", "python")
        )
        build.add_metric((__version__, ".".join(map(str, sys.version_info[:3]))), 1)
        yield build
        lag = HistogramMetricFamily(
            "mesh_event_loop_lag_seconds",
            "By how much the event loop was late: what every connection had to wait.",
        )
        cumulative = list(zip(_LAG_LE, accumulate(self.loop_lag.buckets), strict=True))
        lag.add_metric((), cumulative, self.loop_lag.seconds)
        yield lag
        yield GaugeMetricFamily(
            "mesh_control_plane_connected",
            "1 while the stream to the control plane stands.",
            value=self.connected,
        )
        yield GaugeMetricFamily(
            "mesh_tunnels_active",
            "Exchanges that have switched protocols (WebSocket and the like) and are still open.",
            value=self.tunnels,
        )
        yield CounterMetricFamily(
            "mesh_config_refused", "Config updates refused.", value=self.config_refused
        )
        if self.config_version:
            info = GaugeMetricFamily(
                "mesh_config_info", "The snapshot in force.", labels=("version",)
            )
            info.add_metric((self.config_version,), 1)
            yield info
        if self.config_applied_at:
            yield GaugeMetricFamily(
                "mesh_config_age_seconds",
                "Time since the snapshot in force was applied.",
                value=max(0.0, now - self.config_applied_at),
            )
        if self.certificate_not_after:
            yield GaugeMetricFamily(
                "mesh_certificate_expiry_timestamp_seconds",
                "When the certificate of this proxy ends.",
                value=self.certificate_not_after,
            )
            yield GaugeMetricFamily(
                "mesh_certificate_age_seconds",
                "Time since the certificate of this proxy was received.",
                value=self.certificate_age,
            )
        yield CounterMetricFamily(
            "mesh_certificate_renewals",
            "Certificates received.",
            value=self.certificate_renewals,
        )
        yield CounterMetricFamily(
            "mesh_certificate_renewal_failures",
            "Attempts to get a certificate that failed.",
            value=self.certificate_failures,
        )
        yield GaugeMetricFamily(
            "mesh_certificate_renewal_overdue",
            "1 when three quarters of the certificate's life are over and renewal fails.",
            value=self.certificate_worry,
        )


class _Collector:
    """What a registry wants to see: an object with `collect`."""

    def __init__(self, metrics: Metrics, now: float) -> None:
        self._metrics = metrics
        self._now = now

    def collect(self) -> Iterator["Metric"]:
        return self._metrics._collect(self._now)  # noqa: SLF001 - two halves of one thing

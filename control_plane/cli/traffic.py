"""
From counters of sidecars to traffic on edges: rates, success, latency quantiles.

Sidecars only ever count upwards.  What flowed between two looks is the difference, per series; a
counter that went down belongs to a sidecar that restarted, and counts from zero.  An *edge* is one
workload calling another.  It is counted where requests arrive: there the caller's identity is not
a claim but what mutual TLS proved.  Requests that never arrived (no endpoint, no connection) are
only known to the caller's sidecar, and are added from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from meshproxy.refusal import REFUSALS as REFUSAL_TABLE

REQUESTS = "mesh_requests_total"
BUCKETS = "mesh_request_duration_seconds_bucket"
REFUSALS = "mesh_refusals_total"
HANDSHAKE_FAILURES = "mesh_tls_handshake_failures_total"
CONNECTIONS = "mesh_tcp_connections_total"
SENT = "mesh_tcp_sent_bytes_total"
RECEIVED = "mesh_tcp_received_bytes_total"
OPEN = "mesh_tcp_connections_active"
PLAINTEXT_CONNECTIONS = "mesh_plaintext_connections_total"
PLAINTEXT_OPEN = "mesh_plaintext_connections_active"
COUNTERS = frozenset(
    {
        REQUESTS, BUCKETS, REFUSALS, HANDSHAKE_FAILURES, CONNECTIONS, SENT, RECEIVED,
        PLAINTEXT_CONNECTIONS,
    }
)  # fmt: skip
GAUGES = frozenset({OPEN, PLAINTEXT_OPEN})
"""What goes up and down, so that only where it stands says something."""
PLAINTEXT = "plaintext"
"""The `source` of a request whose caller proved nothing."""
NO_FLAG = ("", "-")

Series = tuple[str, frozenset[tuple[str, str]]]
Counters = Mapping[Series, float]
Buckets = Mapping[float, float]
"""Upper bound in seconds → requests that took at most so long."""


class Edge(NamedTuple):
    """
    Attributes:
        source: ``namespace/service-account`` of the caller, or `PLAINTEXT`.
        destination: ``namespace/workload`` where the requests arrived; the service, or that
            of their route, where they never did.
        version: Of the workload that answered.
        identity: The SPIFFE ID that the caller proved; empty where nothing was proved.
        arrived: Whether the sidecar of the destination has seen the requests.
    """

    source: str
    destination: str
    version: str
    identity: str
    arrived: bool = True


@dataclass
class Traffic:
    """
    What flowed on an edge.

    Attributes:
        codes: Requests by status code.
        refusals: Those that a sidecar answered itself, by code (see `refusal_of`).
        buckets: Requests by the seconds that they took at most.
    """

    codes: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, float] = field(default_factory=dict)
    buckets: dict[float, float] = field(default_factory=dict)

    @property
    def requests(self) -> float:
        return sum(self.codes.values())

    @property
    def success(self) -> float | None:
        """Share of requests that the server did not fail (5xx); None without requests."""
        total = self.requests
        if not total:
            return None
        return 1 - sum(n for code, n in self.codes.items() if code.startswith(("5", "0"))) / total

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which `share` of the requests were answered."""
        return quantile(share, self.buckets)


def parse(exposition: str) -> Counters:
    """Read the counters and gauges of the mesh out of a Prometheus text exposition."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name in COUNTERS | GAUGES
    }


def increase(before: Counters, after: Counters) -> dict[Series, float]:
    """Return by how much each counter rose; one that fell has been started anew."""
    risen: dict[Series, float] = {}
    for series, value in after.items():
        old = before.get(series, 0.0)
        risen[series] = value - old if value >= old else value
    return risen


def edges(counters: Counters) -> dict[Edge, Traffic]:
    """Sort the counters of any number of sidecars by edge; edges without requests are left out."""
    found: dict[Edge, Traffic] = {}
    for (name, pairs), value in counters.items():
        if not value or name not in (REQUESTS, BUCKETS):
            continue
        labels = dict(pairs)
        edge = _edge(name, labels)
        if edge is None:
            continue
        traffic = found.setdefault(edge, Traffic())
        if name == REQUESTS:
            code = labels.get("code", "")
            traffic.codes[code] = traffic.codes.get(code, 0) + value
            if (flag := labels.get("flag", "")) not in NO_FLAG:
                refused = refusal_of(code, flag)
                traffic.refusals[refused] = traffic.refusals.get(refused, 0) + value
        else:
            bound = float(labels["le"])
            traffic.buckets[bound] = traffic.buckets.get(bound, 0) + value
    return {edge: traffic for edge, traffic in sorted(found.items()) if traffic.requests}


def refusal_of(code: str, flag: str) -> str:
    """
    Return the name of the refusal that has this status and flag, as in docs/refusals.md.

    The metric does not name it.  Where several share both, as all ways in which a connection can
    fail do, status and flag are the answer: ``503 UF``.
    """
    names = [
        one.code for one in REFUSAL_TABLE.values() if (str(one.status), one.flag) == (code, flag)
    ]
    return names[0] if len(names) == 1 else f"{code} {flag}"


def count(name: str, counters: Counters) -> float:
    """Return the sum of all series of one metric."""
    return sum(value for (metric, _), value in counters.items() if metric == name)


class Tally:
    """
    What flowed since the first look, over any number of sidecars.

    A sidecar's first look only tells where its counters stand: its past is not ours.  One that
    gives no answer keeps its place until it does.

    Attributes:
        total: By how much each counter rose since the first look.
        standing: Where each gauge stood at the last look, summed over those that answered.
    """

    def __init__(self) -> None:
        self.total: dict[Series, float] = {}
        self.standing: dict[Series, float] = {}
        self._seen: dict[str, Counters] = {}

    def look(self, scrapes: Mapping[str, Counters]) -> dict[Series, float]:
        """Take the counters of each sidecar; return by how much they rose since the last look."""
        risen: dict[Series, float] = {}
        self.standing = {}
        for sidecar, scraped in scrapes.items():
            counters = {series: n for series, n in scraped.items() if series[0] not in GAUGES}
            for series, value in scraped.items():
                if series[0] in GAUGES:
                    self.standing[series] = self.standing.get(series, 0.0) + value
            if sidecar in self._seen:
                for series, value in increase(self._seen[sidecar], counters).items():
                    risen[series] = risen.get(series, 0.0) + value
            self._seen[sidecar] = counters
        for series, value in risen.items():
            self.total[series] = self.total.get(series, 0.0) + value
        return risen


def quantile(share: float, buckets: Buckets) -> float | None:
    """
    Estimate a quantile from a cumulative histogram, as PromQL's histogram_quantile does.

    Within a bucket the requests are taken to be spread evenly.  Of the last bucket, which has no
    upper bound, only its lower bound is known, and that is the answer.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def name_of(identity: str) -> str:
    """``spiffe://demo.mesh/ns/default/sa/catalog`` → ``default/catalog``; else as it is."""
    parts = identity.split("/")
    if identity.startswith("spiffe://") and len(parts) == 7 and parts[3::2] == ["ns", "sa"]:
        return f"{parts[4]}/{parts[6]}"
    return identity


def parent_of(route: str) -> str:
    """``HTTPRoute/default/catalog/0`` → ``default/catalog``: most often the service's name too."""
    parts = route.split("/")
    return "/".join(parts[1:3]) if len(parts) >= 3 else ""


def _edge(name: str, labels: Mapping[str, str]) -> Edge | None:
    source = labels.get("source", "")
    destination, version = labels.get("destination", ""), labels.get("version", "")
    if labels.get("direction") == "inbound":
        proved = "" if source == PLAINTEXT else source
        return Edge(name_of(source), destination, version, proved)
    if name == REQUESTS and labels.get("flag", "") not in NO_FLAG:
        called = destination.strip("-") or parent_of(labels.get("route", ""))
        return Edge(name_of(source), called, version.strip("-"), "", arrived=False)
    return None

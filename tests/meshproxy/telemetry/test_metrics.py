import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshproxy import __version__
from meshproxy.telemetry.metrics import BOUNDS, MOST_CLIENTS, OVERFLOW, Metrics, RequestSeries

LABELS = ("outbound", "default/web", "default/catalog", "v1", "HTTPRoute/default/catalog/0", "h1")
NAMED = {
    "direction": "outbound",
    "source": "default/web",
    "destination": "default/catalog",
    "version": "v1",
    "route": "HTTPRoute/default/catalog/0",
}


class Rendered:
    """The samples of an exposition, as Prometheus would read them."""

    def __init__(self, metrics: Metrics, now: float = 1_000.0) -> None:
        families = list(text_string_to_metric_families(metrics.render(now).decode()))
        self.types = {family.name: family.type for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        found = [s.value for s in self.samples if s.name == name and s.labels == labels]
        assert len(found) == 1, f"{name}{labels}: {found}"
        return float(found[0])

    def named(self, name: str) -> Iterator[dict[str, str]]:
        return (s.labels for s in self.samples if s.name == name)


def test_requests_are_counted_by_outcome() -> None:
    """Same labels, other code or flag: another sample."""
    metrics = Metrics()
    series = metrics.requests(*LABELS)
    series.record(200, "-", 0.004)
    series.record(200, "-", 0.004)
    series.record(503, "UH", 0.0)
    rendered = Rendered(metrics)
    named = {**NAMED, "protocol": "h1"}
    assert rendered.value("mesh_requests_total", **named, code="200", flag="-") == 2
    assert rendered.value("mesh_requests_total", **named, code="503", flag="UH") == 1
    assert rendered.types["mesh_requests"] == "counter"


def test_durations_of_all_protocols_are_one_histogram() -> None:
    """Buckets are cumulative and include their upper bound."""
    metrics = Metrics()
    metrics.requests(*LABELS).record(200, "-", 0.001)
    metrics.requests(*LABELS[:-1], "h2").record(200, "-", 0.0011)
    metrics.requests(*LABELS).record(200, "-", 99.0)
    rendered = Rendered(metrics)
    name = "mesh_request_duration_seconds"
    assert rendered.types[name] == "histogram"
    assert rendered.value(f"{name}_bucket", **NAMED, le="0.0005") == 0
    assert rendered.value(f"{name}_bucket", **NAMED, le="0.001") == 1
    assert rendered.value(f"{name}_bucket", **NAMED, le="0.0025") == 2
    assert rendered.value(f"{name}_bucket", **NAMED, le="30.0") == 2
    assert rendered.value(f"{name}_bucket", **NAMED, le="+Inf") == 3
    assert rendered.value(f"{name}_count", **NAMED) == 3
    assert rendered.value(f"{name}_sum", **NAMED) == pytest.approx(99.0021)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100)))
def test_every_request_falls_into_its_bucket(durations: list[float]) -> None:
    """Counting up to a bound gives the number of requests that took no longer."""
    series = RequestSeries()
    for seconds in durations:
        series.record(200, "-", seconds)
    for index, bound in enumerate(BOUNDS):
        assert sum(series.buckets[: index + 1]) == sum(d <= bound for d in durations)
    assert sum(series.buckets) == len(durations)


def test_the_same_labels_give_the_same_series() -> None:
    """Whoever holds a series counts into what is rendered."""
    metrics = Metrics()
    assert metrics.requests(*LABELS) is metrics.requests(*LABELS)


def test_series_above_the_cap_share_one() -> None:
    """Nothing is lost from the sum, and what was known before stays exact."""
    metrics = Metrics(max_series=2)
    for number in range(10):
        metrics.requests("inbound", f"s{number}", "d", "", "r", "h1").record(200, "-", 0.1)
    metrics.requests("inbound", "s0", "d", "", "r", "h1").record(200, "-", 0.1)
    rendered = Rendered(metrics)
    labels = list(rendered.named("mesh_requests_total"))
    assert [found["source"] for found in labels] == ["s0", "s1", OVERFLOW]
    overflow = dict.fromkeys(labels[-1], OVERFLOW) | {"code": "200", "flag": "-"}
    assert rendered.value("mesh_requests_total", **overflow) == 8


def test_status_codes_of_a_service_are_bounded() -> None:
    """A service that answers with every number there is makes 64 series and one more."""
    metrics = Metrics()
    for status in range(100, 600):
        metrics.requests(*LABELS).record(status, "-", 0.0)
    rendered = Rendered(metrics)
    labels = list(rendered.named("mesh_requests_total"))
    assert len(labels) == 65
    assert sum(s.value for s in rendered.samples if s.name == "mesh_requests_total") == 500
    assert labels[-1]["code"] == OVERFLOW


def test_reasons_are_bounded() -> None:
    """Even if a peer's words ever became a reason, memory would not follow."""
    metrics = Metrics(max_series=3)
    for number in range(1_000):
        metrics.handshake_failed("downstream", f"reason {number}")
        metrics.retried("catalog", f"reason {number}")
        metrics.retry_skipped("catalog", f"reason {number}")
        metrics.refused("inbound", f"code {number}")
    rendered = Rendered(metrics)
    assert len(list(rendered.named("mesh_tls_handshake_failures_total"))) == 65
    assert len(list(rendered.named("mesh_retries_total"))) == 4
    assert rendered.value("mesh_retries_skipped_total", cluster=OVERFLOW, reason=OVERFLOW) == 997
    assert len(list(rendered.named("mesh_refusals_total"))) == 257


def test_counters_by_label() -> None:
    """Each kind of event has its own counter."""
    metrics = Metrics()
    metrics.refused("inbound", "no-route")
    metrics.refused("inbound", "no-route")
    metrics.handshake_failed("upstream", "peer-identity-mismatch")
    metrics.retried("catalog", "connect-failed")
    metrics.retry_skipped("catalog", "budget")
    rendered = Rendered(metrics)
    assert rendered.value("mesh_refusals_total", direction="inbound", code="no-route") == 2
    name = "mesh_tls_handshake_failures_total"
    assert rendered.value(name, side="upstream", reason="peer-identity-mismatch") == 1
    assert rendered.value("mesh_retries_total", cluster="catalog", reason="connect-failed") == 1
    assert rendered.value("mesh_retries_skipped_total", cluster="catalog", reason="budget") == 1


def test_calls_of_grpc_are_counted_by_their_own_status() -> None:
    """For HTTP they are all 200."""
    metrics = Metrics()
    for status in ("0", "0", "4", "-"):
        metrics.grpc_ended(("outbound", "default/web", "default/books", "r", status))
    rendered = Rendered(metrics)
    name = "mesh_grpc_responses_total"
    labels = {
        "direction": "outbound",
        "source": "default/web",
        "destination": "default/books",
        "route": "r",
    }
    assert rendered.value(name, **labels, grpc_status="0") == 2
    assert rendered.value(name, **labels, grpc_status="4") == 1
    assert rendered.value(name, **labels, grpc_status="-") == 1


def test_connections_are_counted_and_gauged() -> None:
    """Active is what was opened and is not closed."""
    metrics = Metrics()
    series = metrics.connection("downstream", "inbound")
    series.opened += 3
    series.closed += 1
    assert metrics.connection("downstream", "inbound") is series
    rendered = Rendered(metrics)
    labels = {"side": "downstream", "direction": "inbound"}
    assert rendered.value("mesh_connections_opened_total", **labels) == 3
    assert rendered.value("mesh_connections_active", **labels) == 2
    assert rendered.types["mesh_connections_active"] == "gauge"


def test_state_is_shown() -> None:
    """Config version and age, the control plane, the certificate, the build."""
    metrics = Metrics()
    metrics.config_version = "abc"
    metrics.config_applied_at = 900.0
    metrics.config_refused = 2
    metrics.connected = True
    metrics.certificate_not_after = 1_234_567_890.0
    metrics.certificate_age = 7.0
    metrics.certificate_renewals, metrics.certificate_failures = 3, 4
    rendered = Rendered(metrics, now=1_000.0)
    assert rendered.value("mesh_config_info", version="abc") == 1
    assert rendered.value("mesh_config_age_seconds") == 100
    assert rendered.value("mesh_config_refused_total") == 2
    assert rendered.value("mesh_control_plane_connected") == 1
    assert rendered.value("mesh_certificate_expiry_timestamp_seconds") == 1_234_567_890
    assert rendered.value("mesh_certificate_age_seconds") == 7
    assert rendered.value("mesh_certificate_renewals_total") == 3
    assert rendered.value("mesh_certificate_renewal_failures_total") == 4
    assert rendered.value("mesh_certificate_renewal_overdue") == 0
    (build,) = rendered.named("mesh_build_info")
    assert build["version"] == __version__


def test_the_lag_of_the_loop_is_a_histogram() -> None:
    """So that one can ask how many beats in a thousand were later than a bound."""
    metrics = Metrics()
    for late in (0.0, 0.018, 3.0):
        metrics.loop_lag.record(late)
    rendered = Rendered(metrics)
    assert rendered.types["mesh_event_loop_lag_seconds"] == "histogram"
    name = "mesh_event_loop_lag_seconds_bucket"
    assert [rendered.value(name, le=le) for le in ("0.015", "0.02", "1.0", "+Inf")] == [1, 2, 2, 3]
    assert rendered.value("mesh_event_loop_lag_seconds_sum") == 3.018


def test_what_is_not_known_yet_is_absent() -> None:
    """An age since 1970 would page somebody; a stream that does not stand is a fact, though."""
    rendered = Rendered(Metrics())
    names = {sample.name for sample in rendered.samples}
    assert not names & {
        "mesh_config_info",
        "mesh_config_age_seconds",
        "mesh_certificate_expiry_timestamp_seconds",
        "mesh_certificate_age_seconds",
    }
    assert rendered.value("mesh_control_plane_connected") == 0


def test_a_clock_set_back_gives_no_negative_age() -> None:
    """Wall clocks jump."""
    metrics = Metrics()
    metrics.config_applied_at = 2_000.0
    assert Rendered(metrics, now=1_000.0).value("mesh_config_age_seconds") == 0


def test_label_values_are_escaped() -> None:
    """A route may be named anything; the exposition stays readable."""
    metrics = Metrics()
    metrics.requests("inbound", 'a"b\\c\nd', "", "", "r", "h1").record(200, "-", 0.0)
    (labels,) = Rendered(metrics).named("mesh_requests_total")
    assert labels["source"] == 'a"b\\c\nd'


def test_prometheus_client_is_loaded_by_the_first_scrape_only() -> None:
    """A sidecar that nobody scrapes does not pay for it."""
    program = (
        "import sys\n"
        "from meshproxy.telemetry.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "metrics.render(0.0)\n"
        "assert 'prometheus_client' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# Who speaks plaintext -----------------------------------------------------------------------------


def test_plaintext_is_counted_by_port_and_client() -> None:
    """Accepted and refused apart; of the accepted, how many are open."""
    metrics = Metrics()
    first = metrics.plaintext_opened("8080", "10.0.0.1")
    metrics.plaintext_opened("8080", "10.0.0.1")
    metrics.plaintext_closed(*first)
    metrics.plaintext_refused("8080", "10.0.0.1")
    rendered = Rendered(metrics)
    named = {"port": "8080", "client": "10.0.0.1"}
    total = "mesh_plaintext_connections_total"
    assert rendered.value(total, **named, verdict="accepted") == 2
    assert rendered.value(total, **named, verdict="refused") == 1
    assert rendered.value("mesh_plaintext_connections_active", **named) == 1


def test_plaintext_clients_beyond_the_cap() -> None:
    """Whoever comes from many addresses fills one series, not our memory; what is open stays right."""
    metrics = Metrics()
    labels = [metrics.plaintext_opened("80", f"10.0.0.{n}") for n in range(MOST_CLIENTS + 3)]
    metrics.plaintext_opened("80", "10.0.0.0")
    for one in labels:
        metrics.plaintext_closed(*one)
    rendered = Rendered(metrics)
    assert len(list(rendered.named("mesh_plaintext_connections_active"))) == MOST_CLIENTS + 1
    more = {"port": OVERFLOW, "client": OVERFLOW}
    name = "mesh_plaintext_connections_total"
    assert rendered.value(name, **more, verdict="accepted") == 3
    assert rendered.value("mesh_plaintext_connections_active", **more) == 0
    active = "mesh_plaintext_connections_active"
    assert rendered.value(active, port="80", client="10.0.0.0") == 1


def test_plaintext_of_a_process_that_died() -> None:
    """Its connections are closed, whoever counts on."""
    dead, metrics = Metrics(), Metrics()
    dead.plaintext_opened("80", "10.0.0.1")
    dead.plaintext_refused("80", "10.0.0.2")
    metrics.add(dead.counts())
    named = {"port": "80", "client": "10.0.0.1"}
    assert Rendered(metrics).value("mesh_plaintext_connections_active", **named) == 1
    metrics = Metrics()
    metrics.add(dead.counts().of_the_dead())
    rendered = Rendered(metrics)
    assert rendered.value("mesh_plaintext_connections_active", **named) == 0
    name = "mesh_plaintext_connections_total"
    assert rendered.value(name, **named, verdict="accepted") == 1

"""Counters of several processes, added up."""

import time

from prometheus_client.parser import text_string_to_metric_families

from meshproxy.contract import wire
from meshproxy.telemetry import metrics as metrics_module
from meshproxy.telemetry.counts import Counts
from meshproxy.telemetry.metrics import Metrics

KEY = ("outbound", "default/a", "default/b", "v1", "all", "http")

TCP = ("inbound", "a", "b", "all")


def counted(status: int = 200) -> Metrics:
    """Return metrics in which everything has been counted once."""
    metrics = Metrics()
    metrics.requests(*KEY).record(status, "-", 0.002)
    tcp = metrics.tcp("outbound", "default/a", "default/b", "all")
    tcp.add(2, 10, 20, {"-": 1})
    metrics.refused("outbound", "no-route")
    metrics.connection("downstream", "outbound").opened += 1
    metrics.handshake_failed("upstream", "other")
    metrics.tunnels += 1
    opaque = metrics.tcp(*TCP)
    opaque.opened, opaque.received, opaque.sent = 2, 10, 20
    opaque.ended("-")
    metrics.retried("b", "connect-failed")
    metrics.rate_limited("inbound", "api", "limit")
    metrics.fault_injected("outbound", "slow", "delay")
    metrics.shed("b", "sheddable")
    metrics.mirrored("b", "2xx")
    metrics.retry_skipped("b", "budget")
    metrics.hedged("b")
    metrics.hedge_won("b")
    metrics.overflowed("b", "cluster", "requests")
    metrics.breaker_changed("b", "open")
    metrics.ejected("b", "success-rate")
    metrics.ejection_prevented("b", "success-rate")
    metrics.health_checked("b", "healthy")
    metrics.loop_lag.record(0.002)
    metrics.gauges.remaining("b", "requests", 3)
    metrics.gauges.retries("b", 10)
    return metrics


def total(*parts: Counts) -> Metrics:
    """Return the sum, each part having travelled as a message."""
    metrics = Metrics()
    for part in parts:
        metrics.add(wire.decode(wire.encode(part), Counts))
    return metrics


def attributes(metrics: Metrics) -> dict[str, object]:
    """Return all that it holds."""
    held = {name: getattr(metrics, name) for name in dir(metrics) if not name.startswith("__")}
    return {name: value for name, value in held.items() if not callable(value)}


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    text = metrics.render(time.time()).decode()
    return {
        (
            sample.name,
            *(f"{key}={value}" for key, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith("mesh_build")
    }


def test_sums() -> None:
    """Whatever one process tells Prometheus, two that have counted the same tell twice."""
    one, two = samples(counted()), samples(total(counted().counts(), counted().counts()))
    assert {name: 2 * value for name, value in one.items()} == two


def test_nothing_is_forgotten() -> None:
    """Each thing that counts is added up; a new one must be, too."""
    state = {
        "config_version", "config_applied_at", "config_refused", "connected",
        "certificate_not_after", "certificate_age", "certificate_renewals",
        "certificate_failures", "certificate_worry", "_max_series",
    }  # fmt: skip
    before, after = attributes(Metrics()), attributes(total(counted().counts()))
    assert {"tunnels", "_tcp"} <= before.keys()
    same = {name for name in before if repr(before[name]) == repr(after[name])}
    assert same <= state | {"_overflow"}


def test_different_outcomes_stay_apart() -> None:
    """The same series in two processes, another status in each."""
    metrics = total(counted(200).counts(), counted(404).counts())
    assert metrics.requests(*KEY).outcomes == {(200, "-"): 1, (404, "-"): 1}


def test_overflow_stays_overflow() -> None:
    """What exceeded the cap in one process is not attributed to anybody by the sum."""
    small = Metrics(max_series=0)
    small.requests(*KEY).record(200, "-", 0.1)
    metrics = total(small.counts(), counted().counts())
    keys = [key for key, _ in metrics.all_requests()]
    assert keys == [KEY, (metrics_module.OVERFLOW,) * 6]


def test_the_dead_have_no_connections() -> None:
    """What they counted stays; what they had open is closed."""
    metrics = total(counted().counts().of_the_dead())
    series = metrics.connection("downstream", "outbound")
    assert (series.opened, series.active, metrics.tunnels) == (1, 0, 0)
    opaque = metrics.tcp(*TCP)
    assert (opaque.active, opaque.received, opaque.flags) == (0, 10, {"-": 1, "LR": 1})
    assert metrics.requests(*KEY).outcomes == {(200, "-"): 1}
    assert not metrics.gauges.readings()


def test_state_is_noted() -> None:
    """It is the parent's, not a sum."""
    parent, metrics = Metrics(), Metrics()
    parent.config_version, parent.config_applied_at, parent.config_refused = "v", 1.0, 2
    metrics.note(parent)
    assert (metrics.config_version, metrics.config_applied_at, metrics.config_refused) == (
        "v",
        1.0,
        2,
    )

"""Beats of an event loop, as a sidecar's metrics tell them."""

from math import inf

from bench.lag import greatest, parsed
from meshproxy.telemetry.metrics import Metrics


def test_what_a_sidecar_tells_is_understood() -> None:
    """The metric has the name and the form that the bench looks for."""
    metrics = Metrics()
    for late in (0.0, 0.018, 3.0):
        metrics.loop_lag.record(late)
    beats = parsed(metrics.render(1_000.0).decode())
    assert (beats[0.001], beats[0.02], beats[1.0], beats[inf]) == (1, 2, 2, 3)


def test_the_latest_of_a_load() -> None:
    """What was before does not count; the bound is one that holds, in milliseconds."""
    before, after = {0.01: 5, 0.05: 5, inf: 6}, {0.01: 7, 0.05: 9, inf: 10}
    assert greatest(before, after) == 50
    assert greatest({}, after) == inf
    assert greatest(after, after) == 10

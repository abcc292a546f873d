"""Small HTTP/1.1 requests on 32 connections, as many as go through."""

from functools import partial

from bench.clients import wrk

from . import BARE, Figures, Metric, Turn, Workload

CONNECTIONS = 32
_METRICS = (
    Metric("cpu_us", "CPU us/request"),
    Metric("rps", "requests/s", better="more"),
    Metric("p50_ms", "p50 ms", 2),
    Metric("p99_ms", "p99 ms", 2),
)


def _saturated(turn: Turn, size: int, *, traced: bool = False) -> Figures:
    web = turn.running.services["web"]
    before = turn.running.cpu()
    seen = wrk.load(web.url(size), web.host, CONNECTIONS, turn.seconds, traced=traced)
    spent = turn.running.cpu() - before
    return {
        "cpu_us": spent / 1000 / max(1, seen.requests),
        "rps": seen.requests / seen.seconds,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "failed": seen.failed,
    }


WORKLOADS = (
    Workload(
        "h1-small",
        "h1",
        f"HTTP/1.1, 100 B, {CONNECTIONS} connections, saturated",
        _METRICS,
        partial(_saturated, size=100),
        twice=True,
        needs=("wrk",),
    ),
    Workload(
        "h1-1k",
        "h1",
        f"HTTP/1.1, 1 KiB, {CONNECTIONS} connections, saturated",
        _METRICS,
        partial(_saturated, size=1024),
        twice=True,
        needs=("wrk",),
    ),
    Workload(
        "single",
        "h1",
        f"single hop, HTTP/1.1, 100 B, {CONNECTIONS} connections, saturated",
        _METRICS,
        partial(_saturated, size=100),
        hop="single",
        base="nginx",
        needs=("wrk",),
    ),
    Workload(
        "armed",
        "h1",
        f"all policies of ours beside none: HTTP/1.1, 100 B, traced, {CONNECTIONS} connections",
        _METRICS,
        partial(_saturated, size=100, traced=True),
        base=BARE,
        only=(BARE, "ours"),
        needs=("wrk",),
    ),
)

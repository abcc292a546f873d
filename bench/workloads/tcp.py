"""Connections that are not HTTP: bulk, new ones, and small messages back and forth."""

from collections.abc import Callable
from functools import partial

from bench.clients import LoadError, ours, wrk
from bench.site import SIZES

from . import Figures, Metric, Turn, Workload

AT_A_TIME, TALKERS = 16, 32


def _load(turn: Turn, what: str, connections: int) -> tuple[Figures, int]:
    """Return what the client saw, and the pair's CPU in nanoseconds."""
    before = turn.running.cpu()
    entry = turn.running.services["tcp"].entry
    seen = ours("tcp", what, entry, connections, turn.seconds, seconds=turn.seconds)
    return seen, turn.running.cpu() - before


def _bulk(turn: Turn, what: str, flows: int) -> Figures:
    seen, spent = _load(turn, what, flows)
    return {
        "cpu_s_per_gb": spent / seen["bytes"],
        "mb_s": seen["bytes"] / 1e6 / seen["seconds"],
        "fairness": seen["fairness"],
    }


def _turns(turn: Turn, what: str, connections: int) -> Figures:
    seen, spent = _load(turn, what, connections)
    return {
        "cpu_us": spent / 1000 / seen["turns"],
        "rate": seen["turns"] / seen["seconds"],
        "p50_ms": seen["p50_ms"],
        "p99_ms": seen["p99_ms"],
    }


def _connections(turn: Turn) -> Figures:
    """By HTTP that nobody between the two looks at: client and app in C, or they would cost more."""
    before = turn.running.cpu()
    brief = turn.running.services["brief"]
    seen = wrk.load(brief.url(SIZES[0]), brief.host, AT_A_TIME, turn.seconds)
    spent = turn.running.cpu() - before
    if seen.failed:
        raise LoadError(f"{seen.failed} of {seen.requests} connections have failed")
    return {
        "cpu_us": spent / 1000 / seen.requests,
        "rate": seen.requests / seen.seconds,
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
    }


def _of_bulk(what: str, flows: int) -> Workload:
    metrics: tuple[Metric, ...] = (
        Metric("cpu_s_per_gb", "CPU s/GB", 2),
        Metric("mb_s", "MB/s", better="more"),
    )
    if flows > 1:
        metrics += (Metric("fairness", "slowest/fastest", 2, better="more"),)
    title = f"opaque TCP, bulk {what}, {flows} {'flow' if flows == 1 else 'flows'}"
    measure = partial(_bulk, what=what, flows=flows)
    return Workload(f"tcp-{what}-{flows}", "tcp", title, metrics, measure, service="tcp")


def _of_turns(
    name: str, title: str, each: str, rate: str, measure: Callable[[Turn], Figures], service: str
) -> Workload:
    metrics = (
        Metric("cpu_us", f"CPU us/{each}"),
        Metric("rate", rate, better="more"),
        Metric("p50_ms", "p50 ms", 2),
        Metric("p99_ms", "p99 ms", 2),
    )
    return Workload(f"tcp-{name}", "tcp", title, metrics, measure, service=service)


WORKLOADS = (
    *(_of_bulk(what, flows) for what in ("up", "down") for flows in (1, 8)),
    _of_turns(
        "connect",
        f"new TCP connections, {AT_A_TIME} at a time, some 100 B each way",
        "connection",
        "connections/s",
        _connections,
        "brief",
    ),
    _of_turns(
        "ping",
        f"TCP ping-pong, 100 B, {TALKERS} connections",
        "round trip",
        "round trips/s",
        partial(_turns, what="ping", connections=TALKERS),
        "tcp",
    ),
)

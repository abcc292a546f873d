"""Connections that are not HTTP: bulk, new ones, and small messages back and forth."""

from functools import partial

from bench.clients import ours

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


def _of_turns(name: str, title: str, each: str, rate: str, connections: int) -> Workload:
    metrics = (
        Metric("cpu_us", f"CPU us/{each}"),
        Metric("rate", rate, better="more"),
        Metric("p50_ms", "p50 ms", 2),
        Metric("p99_ms", "p99 ms", 2),
    )
    measure = partial(_turns, what=name, connections=connections)
    return Workload(f"tcp-{name}", "tcp", title, metrics, measure, service="tcp")


WORKLOADS = (
    *(_of_bulk(what, flows) for what in ("up", "down") for flows in (1, 8)),
    _of_turns(
        "connect",
        f"new TCP connections, {AT_A_TIME} at a time, 100 B each way",
        "connection",
        "connections/s",
        AT_A_TIME,
    ),
    _of_turns(
        "ping",
        f"TCP ping-pong, 100 B, {TALKERS} connections",
        "round trip",
        "round trips/s",
        TALKERS,
    ),
)

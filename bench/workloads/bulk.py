"""Bodies of 1 MiB over HTTP/1.1, down and up, on eight connections."""

from bench.clients import wrk

from . import Figures, Metric, Turn, Workload

CONNECTIONS, SIZE = 8, 1024 * 1024
_METRICS = (Metric("cpu_s_per_gb", "CPU s/GB", 2), Metric("mb_s", "MB/s", better="more"))


def _transfer(turn: Turn, rest: object, post: int = 0) -> Figures:
    bulk = turn.running.services["bulk"]
    before = turn.running.cpu()
    seen = wrk.load(bulk.url(rest), bulk.host, CONNECTIONS, turn.seconds, post)
    spent = turn.running.cpu() - before
    moved = seen.requests * SIZE
    return {
        "cpu_s_per_gb": spent / max(1, moved),  # ns/B is s/GB
        "mb_s": moved / 1e6 / seen.seconds,
        "failed": seen.failed,
    }


def _down(turn: Turn) -> Figures:
    return _transfer(turn, SIZE)


def _up(turn: Turn) -> Figures:
    return _transfer(turn, "upload", SIZE)


WORKLOADS = (
    Workload(
        "down",
        "bulk",
        f"HTTP/1.1, 1 MiB responses, {CONNECTIONS} connections",
        _METRICS,
        _down,
        service="bulk",
        needs=("wrk",),
    ),
    Workload(
        "up",
        "bulk",
        f"HTTP/1.1, 1 MiB requests, {CONNECTIONS} connections",
        _METRICS,
        _up,
        service="bulk",
        needs=("wrk",),
    ),
)

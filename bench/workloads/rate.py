"""A fixed rate, below what any of them can do: what it takes, and what it adds to a direct call."""

from bench.clients import ours
from bench.site import Service

from . import Figures, Metric, Turn, Workload

RATE, CONNECTIONS, SIZE = 1000, 16, 1024


def _call(service: Service, seconds: float) -> Figures:
    return ours(
        "open_loop",
        service.entry,
        service.host,
        service.path(SIZE),
        RATE,
        CONNECTIONS,
        seconds,
        seconds=seconds,
    )


def _fixed(turn: Turn) -> Figures:
    if "p50_ms" not in turn.round:
        direct = next(one for one in turn.site.direct() if one.name == "web")
        turn.round.update(_call(direct, turn.seconds))
    before = turn.running.cpu()
    seen = _call(turn.running.services["web"], turn.seconds)
    spent = turn.running.cpu() - before
    return {
        # Not by the clock: a machine that cannot keep up takes longer for the same requests.
        "vcpu": spent / 1e9 / seen["requests"] * RATE,
        "added_p50_ms": seen["p50_ms"] - turn.round["p50_ms"],
        "added_p99_ms": seen["p99_ms"] - turn.round["p99_ms"],
    }


WORKLOADS = (
    Workload(
        "rate",
        "rate",
        f"HTTP/1.1, 1 KiB, {RATE} requests/s, open loop, {CONNECTIONS} connections",
        (
            Metric("vcpu", "vCPU of the pair", 2),
            Metric("added_p50_ms", "added p50 ms", 2),
            Metric("added_p99_ms", "added p99 ms", 2),
        ),
        _fixed,
        twice=True,
    ),
)

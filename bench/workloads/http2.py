"""Unary calls as gRPC makes them: POST of a small message, an answer that ends with trailers."""

from bench.clients import h2load

from . import Figures, Metric, Turn, Workload

CONNECTIONS, STREAMS = 8, 16


def _unary(turn: Turn) -> Figures:
    grpc = turn.running.services["grpc"]
    before = turn.running.cpu()
    seen = h2load.unary(
        grpc.entry, grpc.host, grpc.path("Call"), CONNECTIONS, STREAMS, turn.seconds
    )
    spent = turn.running.cpu() - before
    return {
        "cpu_us": spent / 1000 / max(1, seen.requests),
        "rps": seen.rps,
        "failed": seen.failed,
    }


WORKLOADS = (
    Workload(
        "grpc",
        "grpc",
        f"gRPC-like unary, {CONNECTIONS} connections x {STREAMS} streams, saturated",
        (Metric("cpu_us", "CPU us/request"), Metric("rps", "requests/s", better="more")),
        _unary,
        service="grpc",
        twice=True,
        needs=("h2load",),
    ),
)

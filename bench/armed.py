"""
Every policy of this project at once: what "all features armed" means wherever `bench` says it.

Each is set so that it looks at every request and minds none of them: limits that are never reached,
faults and mirrors of next to no requests, timeouts that never pass.  What is measured is the price of
having them, not what they do.

Both sides are here as arguments of specs: `A_CLUSTER` and `a_route` of the caller's sidecar (outbound),
`B_CLUSTER` and `B_ROUTE` of the app's (inbound).
"""

from typing import Any, Final

from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    FaultSpec,
    LimitsSpec,
    MirrorSpec,
    OutlierSpec,
    RateLimitSpec,
    RetryBudgetSpec,
    RetrySpec,
    SheddingSpec,
)

_NEVER: Final = 1e-9
"""Percent: of nothing at all, a policy need not be asked."""

_RETRY: Final = RetrySpec(
    codes=(502, 503, 504),
    conditions=("5xx", "reset", "connect-failure", "timeout", "grpc-unavailable"),
    per_try_timeout=1_000,
)

_CLUSTER: Final[dict[str, Any]] = {
    "request_timeout": 15_000,
    "backend_request_timeout": 12_000,
    "stream_idle_timeout": 60_000,
    "max_stream_duration": 3_600_000,
    "retry": _RETRY,
    "retry_budget": RetryBudgetSpec(),
    "limits": LimitsSpec(connections=10_000, pending=10_000, requests=10_000, retries=1_000),
    "endpoint_limits": LimitsSpec(connections=10_000, pending=10_000, requests=10_000),
    "breaker": CircuitBreakerSpec(slow_percent=50.0, slow_threshold=30_000),
    "outliers": OutlierSpec(consecutive_5xx=5, success_rate=True, failure_percent=85.0),
}

A_CLUSTER: Final[dict[str, Any]] = _CLUSTER
B_CLUSTER: Final[dict[str, Any]] = {
    **_CLUSTER,
    "shedding": SheddingSpec(min_limit=1_000, initial=10_000, max_limit=10_000),
}


def _route(*, inbound: bool) -> dict[str, Any]:
    side = "in" if inbound else "out"
    return {
        "request_timeout": 15_000,
        "backend_request_timeout": 12_000,
        "retry": _RETRY,
        "faults": (FaultSpec(name=f"{side}-never", abort_status=503, abort_percent=_NEVER),),
        "rate_limits": (
            RateLimitSpec(name=f"{side}-each", per="identity", requests=1_000_000, burst=1_000_000),
        ),
    }


B_ROUTE: Final[dict[str, Any]] = _route(inbound=True)


def a_route(cluster: str) -> dict[str, Any]:
    """Return those of a route that leads to `cluster`, which is what it mirrors to, too."""
    return {**_route(inbound=False), "mirrors": (MirrorSpec(cluster=cluster, percent=_NEVER),)}

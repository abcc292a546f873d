"""
Every policy of this project at once: what "all features armed" means wherever `bench` says it.

Each is set so that it looks at every request and minds none of them: limits that are never reached,
faults and mirrors of next to no requests, timeouts that never pass.  What is measured is the price of
having them, not what they do.

Both sides are here as arguments of specs, divided as the control plane divides them: `A_CLUSTER` and
`a_route` for the caller's sidecar (outbound), `B_CLUSTER`, `B_ROUTE` and `b_host` for the app's
(inbound), where all callers come together.  `bench/peers/envoy_armed.py` tells Envoy the same.
"""

from typing import Any, Final

from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    OperationSpec,
    SourceSpec,
)
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

A_CLUSTER: Final[dict[str, Any]] = {
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
B_CLUSTER: Final[dict[str, Any]] = {
    "stream_idle_timeout": 60_000,
    "shedding": SheddingSpec(min_limit=1_000, initial=10_000, max_limit=10_000),
    "limits": LimitsSpec(),
    "endpoint_limits": LimitsSpec(),
    "outliers": None,
}
B_ROUTE: Final[dict[str, Any]] = {
    "rate_limits": (
        RateLimitSpec(name="each", per="identity", requests=1_000_000, burst=1_000_000),
    )
}


def a_route(cluster: str) -> dict[str, Any]:
    """Return those of a route that leads to `cluster`, which is what it mirrors to, too."""
    return {
        "request_timeout": 15_000,
        "backend_request_timeout": 12_000,
        "retry": _RETRY,
        "faults": (FaultSpec(name="never", abort_status=503, abort_percent=_NEVER),),
        "mirrors": (MirrorSpec(cluster=cluster, percent=_NEVER),),
    }


def b_host(caller: str) -> dict[str, Any]:
    """Return those of all routes to an app that `caller` may ask for everything, and nobody else."""
    rule = AuthorizationRuleSpec(
        sources=(SourceSpec(principals=(caller,)),), operations=(OperationSpec(paths=("/*",)),)
    )
    return {"authorization": (AuthorizationSpec(name="bench/caller", rules=(rule,)),)}

"""
A TrafficPolicy to what the contract says of a cluster: one function for each section.

A section that is absent leaves the contract's defaults; the defaults of its fields are the same ones
(a test compares them).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec

from control_plane.resources.duration import milliseconds
from control_plane.resources.fields import SessionPersistence
from control_plane.resources.policies import (
    CircuitBreaker,
    EndpointLimits,
    HealthCheck,
    Limits,
    LoadBalancing,
    LoadShedding,
    OutlierDetection,
    Retry,
    RetryConstraint,
    Timeouts,
    TrafficPolicySpec,
)
from control_plane.resources.quantity import bytes_of
from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    Criticality,
    HashKeySpec,
    HashSource,
    HealthCheckSpec,
    HedgeSpec,
    LimitsSpec,
    LoadBalancingSpec,
    OutlierSpec,
    RetryBudgetSpec,
    RetrySpec,
    SessionPersistenceSpec,
    SheddingSpec,
)
from meshproxy.contract.resources import ClusterSpec

SESSION_NAME = "mesh-session"
"""Of the cookie or header of a session that nobody has named."""

Algorithm = Literal["peak-ewma", "least-request", "round-robin", "random", "ring-hash", "maglev"]
_ALGORITHMS: dict[str, Algorithm] = {
    "PeakEWMA": "peak-ewma",
    "LeastRequest": "least-request",
    "RoundRobin": "round-robin",
    "Random": "random",
    "RingHash": "ring-hash",
    "Maglev": "maglev",
}
_HASH_SOURCES: dict[str, HashSource] = {
    "Header": "header",
    "Cookie": "cookie",
    "QueryParam": "query",
    "SourceIdentity": "identity",
    "SourceIP": "address",
}
_CRITICALITIES: dict[str, Criticality] = {
    "Critical": "critical",
    "Default": "default",
    "Sheddable": "sheddable",
}


def at_callers(
    cluster: ClusterSpec, policy: TrafficPolicySpec, spoken: Literal["http1", "http2"]
) -> ClusterSpec:
    """
    Return a cluster with what a policy says about calling it.

    A check by gRPC is left out where the app is spoken to in HTTP/1.1: it could only fail, for all
    endpoints at once.  `policy_references` reports it.
    """
    changes = _sections(policy)
    check = changes.get("health_check")
    if check is not None and check.type == "grpc" and spoken == "http1":
        del changes["health_check"]
    return msgspec.structs.replace(cluster, **changes)


def at_workloads(cluster: ClusterSpec, policies: Iterable[TrafficPolicySpec]) -> ClusterSpec:
    """
    Return an inbound cluster with what the policies of the Services in front of it say.

    Most of a policy is the callers' business.  What can only be done beside the app is done here:
    shedding.  And where callers may be silent for long, or keep connections for long, the way
    to the app must not be the one that ends them.  Of several policies the oldest that says
    something decides.
    """
    changes: dict[str, Any] = {}
    for policy in policies:
        if policy.load_shedding is not None:
            changes.setdefault("shedding", load_shedding(policy.load_shedding))
        if policy.timeouts is not None:
            said = timeouts(policy.timeouts)
            for name in ("stream_idle_timeout", "tunnel_idle_timeout", "idle_timeout"):
                changes.setdefault(name, said[name])
    return msgspec.structs.replace(cluster, **changes)


def _sections(policy: TrafficPolicySpec) -> dict[str, Any]:
    changes: dict[str, Any] = {
        attribute: compiled(section)
        for name, attribute, compiled in _AT_CALLERS
        if (section := getattr(policy, name)) is not None
    }
    if policy.timeouts is not None:
        changes |= timeouts(policy.timeouts)
    if policy.limits is not None:
        changes["endpoint_limits"] = limits(policy.limits.per_endpoint)
    return changes


# The sections -------------------------------------------------------------------------------------


def timeouts(section: Timeouts) -> dict[str, int]:
    """Return what a section says, by the names of `ClusterSpec`, like all others below."""
    return {
        "request_timeout": milliseconds(section.request),
        "backend_request_timeout": milliseconds(section.backend_request),
        "connect_timeout": milliseconds(section.connect),
        "stream_idle_timeout": milliseconds(section.stream_idle),
        "tunnel_idle_timeout": milliseconds(section.tunnel_idle),
        "max_stream_duration": milliseconds(section.max_stream),
        "idle_timeout": milliseconds(section.idle_connection),
    }


def retry(section: Retry) -> RetrySpec:
    hedging = section.hedging
    return RetrySpec(
        attempts=section.attempts + 1,  # the contract counts tries, people count retries
        codes=section.codes,
        conditions=section.retry_on,
        backoff=milliseconds(section.backoff),
        max_backoff=milliseconds(section.max_backoff),
        per_try_timeout=_optional(section.per_try_timeout),
        any_method=section.any_method,
        of_retries=section.of_retries,
        replay_limit=bytes_of(section.body_limit),
        hedge=None
        if hedging is None
        else HedgeSpec(percentile=hedging.percentile, min_delay=milliseconds(hedging.min_delay)),
    )


def retry_budget(section: RetryConstraint) -> RetryBudgetSpec:
    return RetryBudgetSpec(
        percent=float(section.budget.percent),
        interval=milliseconds(section.budget.interval),
        min_count=section.min_retry_rate.count,
        min_interval=milliseconds(section.min_retry_rate.interval),
    )


def limits(section: Limits | EndpointLimits) -> LimitsSpec:
    return LimitsSpec(
        connections=section.max_connections,
        pending=section.max_pending_requests,
        requests=section.max_requests,
        retries=section.max_retries,
    )


def circuit_breaker(section: CircuitBreaker) -> CircuitBreakerSpec:
    return CircuitBreakerSpec(
        window=milliseconds(section.window),
        min_requests=section.min_requests,
        failure_percent=_share(section.failure_percent),
        slow_percent=_share(section.slow_call_percent),
        slow_threshold=milliseconds(section.slow_call_threshold),
        open_time=milliseconds(section.open_time),
        max_open_time=milliseconds(section.max_open_time),
        probes=section.probes,
    )


def outlier_detection(section: OutlierDetection) -> OutlierSpec | None:
    if not section.enabled:
        return None
    return OutlierSpec(
        consecutive_5xx=section.consecutive_5xx_errors or None,
        consecutive_gateway_errors=section.consecutive_gateway_errors or None,
        consecutive_local_failures=section.consecutive_local_origin_failures or None,
        interval=milliseconds(section.interval),
        success_rate=section.success_rate,
        stdev_factor=section.success_rate_stdev_factor,
        failure_percent=_share(section.failure_percent),
        min_hosts=section.min_hosts,
        min_requests=section.min_requests,
        base_ejection=milliseconds(section.base_ejection_time),
        max_ejection=milliseconds(section.max_ejection_time),
        max_ejected_percent=float(section.max_ejection_percent),
        panic_percent=float(section.panic_threshold),
    )


def health_check(section: HealthCheck) -> HealthCheckSpec:
    asked: dict[str, Any] = {"type": "tcp"}
    if section.http is not None:
        asked = {
            "type": "http",
            "path": section.http.path,
            "statuses": section.http.statuses,
        }
    elif section.grpc is not None:
        asked = {"type": "grpc", "service": section.grpc.service}
    return HealthCheckSpec(
        interval=milliseconds(section.interval),
        timeout=milliseconds(section.timeout),
        healthy=section.healthy_threshold,
        unhealthy=section.unhealthy_threshold,
        **asked,
    )


def load_balancing(section: LoadBalancing) -> LoadBalancingSpec:
    return LoadBalancingSpec(
        algorithm=_ALGORITHMS[section.algorithm],
        hash_keys=tuple(
            HashKeySpec(
                source=_HASH_SOURCES[key.type], name=key.name or "", cookie_ttl=_optional(key.ttl)
            )
            for key in section.hash_keys
        ),
        ring_size=section.ring_size,
        slow_start=milliseconds(section.slow_start),
        locality=section.locality == "Prefer",
    )


def session_persistence(section: SessionPersistence) -> SessionPersistenceSpec:
    """Return a session of a Service, or of a route's rule: GEP-1619 has the same for both."""
    cookie = section.cookie_config
    return SessionPersistenceSpec(
        name=section.session_name or SESSION_NAME,
        type="cookie" if section.type == "Cookie" else "header",
        absolute_timeout=_optional(section.absolute_timeout),
        permanent=cookie is not None and cookie.lifetime_type == "Permanent",
    )


def load_shedding(section: LoadShedding) -> SheddingSpec:
    return SheddingSpec(
        min_limit=section.min_limit,
        max_limit=section.max_limit,
        initial=section.initial_limit,
        adaptive=section.adaptive,
        default_criticality=_CRITICALITIES[section.default_criticality],
    )


def _optional(duration: str | None) -> int | None:
    return None if duration is None else milliseconds(duration)


def _share(percent: int) -> float | None:
    """0 of a share that would trip something means that nobody looks at it."""
    return float(percent) if percent else None


_AT_CALLERS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("retry", "retry", retry),
    ("retry_constraint", "retry_budget", retry_budget),
    ("limits", "limits", limits),
    ("circuit_breaker", "breaker", circuit_breaker),
    ("outlier_detection", "outliers", outlier_detection),
    ("health_check", "health_check", health_check),
    ("load_balancing", "balancing", load_balancing),
    ("session_persistence", "session", session_persistence),
    ("max_connection_age", "max_connection_age", milliseconds),
)
"""Section of a policy, attribute of a cluster, how the one becomes the other."""

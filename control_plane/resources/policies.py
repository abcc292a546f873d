"""
Our policies, as frozen structures with the names and meanings of their YAML.

A section that is absent leaves its defaults in force: those of its fields here, for what is on by
default, and else nothing.  Counts of which 0 would make no sense are switched off by 0.  What a
proxy does with each field, its contract says (`meshproxy/contract/policies.py`); the names are
Envoy's, Istio's or the Gateway API's, whichever their users know best.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from meshproxy.contract.policies import RetryCondition

from .fields import (
    Attempts,
    Count,
    Duration,
    Metadata,
    Model,
    Percent,
    Period,
    Positive,
    RetryCode,
    SessionPersistence,
)
from .gateway_api import HTTPRouteMatch

# What policies share --------------------------------------------------------------------------------


class TargetRef(Model, frozen=True, kw_only=True):
    """
    LocalPolicyTargetReferenceWithSectionName (GEP-713): a Service of the policy's own namespace.

    Attributes:
        section_name: The name of one of its ports; all of them without.
    """

    group: Literal[""] = ""
    kind: Literal["Service"] = "Service"
    name: str
    section_name: str | None = None


class From(Model, frozen=True, kw_only=True):
    """Who calls: one of these SPIFFE IDs, of which each may end in ``*``; anybody without."""

    principals: tuple[str, ...] = ()


# TrafficPolicy (meshproxy.io/v1alpha1) --------------------------------------------------------------


class Timeouts(Model, frozen=True, kw_only=True):
    """``0s`` for no limit, where it is allowed."""

    request: Duration = "0s"
    backend_request: Duration = "0s"
    connect: Period = "5s"
    stream_idle: Duration = "5m"
    tunnel_idle: Duration = "0s"
    max_stream: Duration = "0s"
    idle_connection: Period = "1m"


class Hedging(Model, frozen=True, kw_only=True):
    percentile: Annotated[float, Meta(gt=0, lt=100)] = 95.0
    min_delay: Duration = "10ms"


class Retry(Model, frozen=True, kw_only=True):
    """`attempts` are retries, as the Gateway API and Istio count them: 2 are three tries in all."""

    attempts: Attempts = 2
    codes: tuple[RetryCode, ...] = ()
    retry_on: tuple[RetryCondition, ...] = ()
    backoff: Duration = "25ms"
    max_backoff: Duration = "1s"
    per_try_timeout: Period | None = None
    any_method: bool = False
    of_retries: bool = False
    body_limit: int | str = "64Ki"
    hedging: Hedging | None = None


class Budget(Model, frozen=True, kw_only=True):
    percent: Percent = 20
    interval: Period = "10s"


class RequestRate(Model, frozen=True, kw_only=True):
    count: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    interval: Period = "1s"


class RetryConstraint(Model, frozen=True, kw_only=True):
    """GEP-3388 (XBackendTrafficPolicy)."""

    budget: Budget = Budget()
    min_retry_rate: RequestRate = RequestRate()


class EndpointLimits(Model, frozen=True, kw_only=True):
    max_connections: Positive = 1024
    max_pending_requests: Count = 1024
    max_requests: Positive | None = None
    max_retries: Count | None = None


class Limits(Model, frozen=True, kw_only=True):
    """Envoy's circuit breaker thresholds, but for `maxRetries`: there is a budget for retries."""

    max_connections: Positive = 1024
    max_pending_requests: Count = 1024
    max_requests: Positive = 1024
    max_retries: Count | None = None
    per_endpoint: EndpointLimits = EndpointLimits()


class CircuitBreaker(Model, frozen=True, kw_only=True):
    """`failurePercent` and `slowCallPercent`: 0 does not look at it."""

    window: Period = "10s"
    min_requests: Positive = 20
    failure_percent: Percent = 50
    slow_call_percent: Percent = 0
    slow_call_threshold: Period = "1s"
    open_time: Period = "5s"
    max_open_time: Period = "1m"
    probes: Positive = 3


class OutlierDetection(Model, frozen=True, kw_only=True):
    """Names of Istio's DestinationRule and Envoy's; 0 switches a detector off."""

    enabled: bool = True
    consecutive_5xx_errors: Count = field(name="consecutive5xxErrors", default=0)
    consecutive_gateway_errors: Count = 5
    consecutive_local_origin_failures: Count = 5
    interval: Period = "10s"
    success_rate: bool = False
    success_rate_stdev_factor: Positive = 1900
    failure_percent: Percent = 0
    min_hosts: Positive = 5
    min_requests: Positive = 100
    base_ejection_time: Period = "30s"
    max_ejection_time: Period = "5m"
    max_ejection_percent: Percent = 10
    panic_threshold: Percent = 50


class HTTPHealthCheck(Model, frozen=True, kw_only=True):
    path: str = "/"
    statuses: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()


class GRPCHealthCheck(Model, frozen=True, kw_only=True):
    service: str = ""


class TCPHealthCheck(Model, frozen=True, kw_only=True):
    """A connection is all that it wants."""


class HealthCheck(Model, frozen=True, kw_only=True):
    """One of `http`, `grpc` and `tcp`."""

    http: HTTPHealthCheck | None = None
    grpc: GRPCHealthCheck | None = None
    tcp: TCPHealthCheck | None = None
    interval: Period = "10s"
    timeout: Period = "1s"
    healthy_threshold: Positive = 2
    unhealthy_threshold: Positive = 3


class HashKey(Model, frozen=True, kw_only=True):
    """
    Attributes:
        name: Of the header, cookie or query parameter.
        ttl: Of a cookie that the proxy sets where it is missing; ``0s`` for the browser's session.
    """

    type: Literal["Header", "Cookie", "QueryParam", "SourceIdentity", "SourceIP"]
    name: str | None = None
    ttl: Duration | None = None


class LoadBalancing(Model, frozen=True, kw_only=True):
    algorithm: Literal["PeakEWMA", "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"] = (
        "PeakEWMA"
    )
    hash_keys: tuple[HashKey, ...] = ()
    ring_size: Annotated[int, Meta(ge=1, le=8_388_608)] | None = None
    slow_start: Duration = "0s"
    locality: Literal["Prefer", "Ignore"] = "Prefer"


class LoadShedding(Model, frozen=True, kw_only=True):
    adaptive: bool = True
    initial_limit: Positive = 20
    min_limit: Positive = 4
    max_limit: Positive = 1000
    default_criticality: Literal["Critical", "Default", "Sheddable"] = "Default"


class TrafficPolicySpec(Model, frozen=True, kw_only=True):
    target_refs: tuple[TargetRef, ...]
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    retry_constraint: RetryConstraint | None = None
    limits: Limits | None = None
    circuit_breaker: CircuitBreaker | None = None
    outlier_detection: OutlierDetection | None = None
    health_check: HealthCheck | None = None
    load_balancing: LoadBalancing | None = None
    session_persistence: SessionPersistence | None = None
    max_connection_age: Period | None = None
    load_shedding: LoadShedding | None = None


class TrafficPolicy(Model, frozen=True, kw_only=True):
    """How a Service is called: at each caller, but for `loadShedding`, which is at its workloads."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["TrafficPolicy"]
    metadata: Metadata
    spec: TrafficPolicySpec


# RateLimitPolicy (meshproxy.io/v1alpha1) ------------------------------------------------------------


class RateLimitKey(Model, frozen=True, kw_only=True):
    """Which requests share a bucket; `header` names one, with type Header."""

    type: Literal["All", "Identity", "Header"] = "All"
    header: str | None = None


class RateLimitRule(Model, frozen=True, kw_only=True):
    """
    Attributes:
        name: Unique in the policy; in metrics and in `RateLimit-Policy`; its number when left out.
        source: Who is counted (``from`` in YAML).
        requests: That many in `interval`.
        burst: That many at once; `requests` when left out.
    """

    name: str | None = None
    match: HTTPRouteMatch = HTTPRouteMatch()
    source: From = field(name="from", default=From())
    per: RateLimitKey = RateLimitKey()
    requests: Positive
    interval: Period = "1s"
    burst: Positive | None = None


class RateLimitPolicySpec(Model, frozen=True, kw_only=True):
    target_refs: tuple[TargetRef, ...] = ()
    rules: tuple[RateLimitRule, ...]


class RateLimitPolicy(Model, frozen=True, kw_only=True):
    """At the workloads behind the Services it targets; at the callers for routes that refer to it."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["RateLimitPolicy"]
    metadata: Metadata
    spec: RateLimitPolicySpec


# FaultInjection (meshproxy.io/v1alpha1) -------------------------------------------------------------

Share = Annotated[float, Meta(ge=0, le=100)]
"""Percent; also parts of one."""
GRPCCode = Literal[
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip
"""In the order of their numbers, from 1."""


class Delay(Model, frozen=True, kw_only=True):
    fixed_delay: Period
    percent: Share = 100.0


class Abort(Model, frozen=True, kw_only=True):
    """`grpcStatus` is for gRPC calls, `httpStatus` for the rest, and for both where it is alone."""

    http_status: Annotated[int, Meta(ge=200, le=599)] | None = None
    grpc_status: GRPCCode | None = None
    percent: Share = 100.0


class FaultRule(Model, frozen=True, kw_only=True):
    """`name` is unique in the policy, its number when left out; `source` is ``from`` in YAML."""

    name: str | None = None
    match: HTTPRouteMatch = HTTPRouteMatch()
    source: From = field(name="from", default=From())
    delay: Delay | None = None
    abort: Abort | None = None


class FaultInjectionSpec(Model, frozen=True, kw_only=True):
    target_refs: tuple[TargetRef, ...] = ()
    rules: tuple[FaultRule, ...]


class FaultInjection(Model, frozen=True, kw_only=True):
    """At the callers: of the Services it targets, and for routes that refer to it."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["FaultInjection"]
    metadata: Metadata
    spec: FaultInjectionSpec


Policy = TrafficPolicy | RateLimitPolicy | FaultInjection

import msgspec
import pytest

from control_plane.generate import traffic_policy
from control_plane.generate.traffic_policy import SESSION_NAME, at_callers
from control_plane.resources import policies
from control_plane.resources.fields import SessionPersistence
from control_plane.resources.policies import TrafficPolicy
from meshproxy.contract import wire
from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    HashKeySpec,
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
from tests.helpers.mesh import policy, source

CLUSTER = ClusterSpec(name="default/a:80")


def made(sections: str) -> ClusterSpec:
    resource = source(policy("p", sections)).resource
    assert isinstance(resource, TrafficPolicy)
    cluster = at_callers(CLUSTER, resource.spec, "http2")
    assert wire.decode(wire.encode(cluster), ClusterSpec) == cluster  # within the contract's bounds
    return cluster


EVERY_SECTION = "timeouts: {}, retry: {}, retryConstraint: {}, limits: {}, outlierDetection: {}, loadBalancing: {}"


def test_what_is_not_said_is_the_default_of_the_contract() -> None:
    """Of a section, as of the whole policy: what people read and what proxies do is one thing."""
    assert made("") == CLUSTER
    assert made(EVERY_SECTION) == CLUSTER
    assert traffic_policy.circuit_breaker(policies.CircuitBreaker()) == CircuitBreakerSpec()
    http = policies.HealthCheck(http=policies.HTTPHealthCheck())
    assert traffic_policy.health_check(http) == HealthCheckSpec()
    assert traffic_policy.load_shedding(policies.LoadShedding()) == SheddingSpec()
    named = SessionPersistenceSpec(name=SESSION_NAME)
    assert traffic_policy.session_persistence(SessionPersistence()) == named
    hedged = traffic_policy.retry(policies.Retry(hedging=policies.Hedging()))
    assert hedged == RetrySpec(hedge=HedgeSpec())


def test_what_nobody_asked_for_is_off() -> None:
    """Retries only of what was not processed, outlier detection passive, and nothing else at all."""
    cluster = made("")
    optional = ("breaker", "health_check", "session", "shedding", "max_connection_age")
    assert [name for name in optional if getattr(cluster, name) is not None] == []
    assert (cluster.retry.codes, cluster.retry.conditions, cluster.retry.hedge) == ((), (), None)
    assert (cluster.retry.any_method, cluster.retry.of_retries) == (False, False)
    assert cluster.outliers == OutlierSpec()
    assert cluster.balancing == LoadBalancingSpec(algorithm="peak-ewma")
    assert cluster.retry_budget == RetryBudgetSpec(
        percent=20.0, interval=10_000, min_count=10, min_interval=1_000
    )
    assert cluster.limits == LimitsSpec(connections=1024, pending=1024, requests=1024)
    assert cluster.request_timeout == cluster.backend_request_timeout == 0
    assert cluster.tunnel_idle_timeout == cluster.max_stream_duration == 0


@pytest.mark.parametrize(
    ("sections", "changes"),
    [
        (
            (
                "timeouts: {request: 1m, backendRequest: 2s, connect: 300ms, streamIdle: 0s, tunnelIdle: 2h, "
                "maxStream: 1h, idleConnection: 4s}"
            ),
            {
                "request_timeout": 60_000,
                "backend_request_timeout": 2_000,
                "connect_timeout": 300,
                "stream_idle_timeout": 0,
                "tunnel_idle_timeout": 7_200_000,
                "max_stream_duration": 3_600_000,
                "idle_timeout": 4_000,
            },
        ),
        (
            (
                "retry: {attempts: 4, codes: [502, 503], retryOn: [reset, grpc-unavailable], backoff: 50ms, "
                "maxBackoff: 2s, perTryTimeout: 3s, anyMethod: true, ofRetries: true, bodyLimit: 1Mi, "
                "hedging: {percentile: 99, minDelay: 20ms}}"
            ),
            {
                "retry": RetrySpec(
                    attempts=5,
                    codes=(502, 503),
                    conditions=("reset", "grpc-unavailable"),
                    backoff=50,
                    max_backoff=2_000,
                    per_try_timeout=3_000,
                    any_method=True,
                    of_retries=True,
                    replay_limit=1 << 20,
                    hedge=HedgeSpec(percentile=99.0, min_delay=20),
                )
            },
        ),
        ("retry: {attempts: 0}", {"retry": RetrySpec(attempts=1)}),
        (
            (
                "retryConstraint: {budget: {percent: 10, interval: 5s}, "
                "minRetryRate: {count: 3, interval: 2s}}"
            ),
            {
                "retry_budget": RetryBudgetSpec(
                    percent=10.0, interval=5_000, min_count=3, min_interval=2_000
                )
            },
        ),
        (
            (
                "limits: {maxConnections: 1, maxPendingRequests: 0, maxRequests: 3, maxRetries: 4, "
                "perEndpoint: {maxConnections: 5, maxPendingRequests: 6, maxRequests: 7, maxRetries: 8}}"
            ),
            {
                "limits": LimitsSpec(connections=1, pending=0, requests=3, retries=4),
                "endpoint_limits": LimitsSpec(connections=5, pending=6, requests=7, retries=8),
            },
        ),
        (
            (
                "circuitBreaker: {window: 1s, minRequests: 2, failurePercent: 0, slowCallPercent: 30, "
                "slowCallThreshold: 4s, openTime: 6s, maxOpenTime: 7s, probes: 8}"
            ),
            {
                "breaker": CircuitBreakerSpec(
                    window=1_000,
                    min_requests=2,
                    failure_percent=None,
                    slow_percent=30.0,
                    slow_threshold=4_000,
                    open_time=6_000,
                    max_open_time=7_000,
                    probes=8,
                )
            },
        ),
        (
            (
                "outlierDetection: {consecutive5xxErrors: 1, consecutiveGatewayErrors: 0, "
                "consecutiveLocalOriginFailures: 3, interval: 4s, successRate: true, "
                "successRateStdevFactor: 5, failurePercent: 6, minHosts: 7, minRequests: 8, "
                "baseEjectionTime: 9s, maxEjectionTime: 10s, maxEjectionPercent: 11, panicThreshold: 12}"
            ),
            {
                "outliers": OutlierSpec(
                    consecutive_5xx=1,
                    consecutive_gateway_errors=None,
                    consecutive_local_failures=3,
                    interval=4_000,
                    success_rate=True,
                    stdev_factor=5,
                    failure_percent=6.0,
                    min_hosts=7,
                    min_requests=8,
                    base_ejection=9_000,
                    max_ejection=10_000,
                    max_ejected_percent=11.0,
                    panic_percent=12.0,
                )
            },
        ),
        ("outlierDetection: {enabled: false}", {"outliers": None}),
        (
            (
                "healthCheck: {http: {path: /up, statuses: [200]}, interval: 5s, timeout: 2s, "
                "healthyThreshold: 3, unhealthyThreshold: 4}"
            ),
            {
                "health_check": HealthCheckSpec(
                    type="http",
                    path="/up",
                    statuses=(200,),
                    interval=5_000,
                    timeout=2_000,
                    healthy=3,
                    unhealthy=4,
                )
            },
        ),
        (
            "healthCheck: {grpc: {service: a.B}}",
            {"health_check": HealthCheckSpec(type="grpc", service="a.B")},
        ),
        ("healthCheck: {tcp: {}}", {"health_check": HealthCheckSpec(type="tcp")}),
        (
            (
                "loadBalancing: {algorithm: RingHash, ringSize: 512, locality: Ignore, hashKeys: "
                "[{type: Header, name: a}, {type: Cookie, name: b, ttl: 1m}, {type: QueryParam, name: c}, "
                "{type: SourceIdentity}, {type: SourceIP}]}"
            ),
            {
                "balancing": LoadBalancingSpec(
                    algorithm="ring-hash",
                    ring_size=512,
                    locality=False,
                    hash_keys=(
                        HashKeySpec(source="header", name="a"),
                        HashKeySpec(source="cookie", name="b", cookie_ttl=60_000),
                        HashKeySpec(source="query", name="c"),
                        HashKeySpec(source="identity"),
                        HashKeySpec(source="address"),
                    ),
                )
            },
        ),
        ("loadBalancing: {slowStart: 30s}", {"balancing": LoadBalancingSpec(slow_start=30_000)}),
        (
            (
                "sessionPersistence: {sessionName: s, absoluteTimeout: 1h, "
                "cookieConfig: {lifetimeType: Permanent}}"
            ),
            {
                "session": SessionPersistenceSpec(
                    name="s", absolute_timeout=3_600_000, permanent=True
                )
            },
        ),
        (
            "sessionPersistence: {type: Header}",
            {"session": SessionPersistenceSpec(name="mesh-session", type="header")},
        ),
        ("maxConnectionAge: 10m", {"max_connection_age": 600_000}),
        ("loadShedding: {}", {}),  # is the workloads' business
    ],
)
def test_sections(sections: str, changes: dict[str, object]) -> None:
    """Each field has its place in the contract; nothing else changes."""
    assert made(sections) == msgspec.structs.replace(CLUSTER, **changes)


def test_load_shedding() -> None:
    """Beside the app, of whom all callers ask too much together."""
    section = policies.LoadShedding(
        adaptive=False, initial_limit=1, min_limit=2, max_limit=3, default_criticality="Sheddable"
    )
    assert traffic_policy.load_shedding(section) == SheddingSpec(
        adaptive=False, initial=1, min_limit=2, max_limit=3, default_criticality="sheddable"
    )


@pytest.mark.parametrize(
    "algorithm", ["PeakEWMA", "LeastRequest", "RoundRobin", "Random", "Maglev"]
)
def test_algorithms(algorithm: str) -> None:
    """Every name has its meaning."""
    keys = ", hashKeys: [{type: SourceIP}]" if algorithm == "Maglev" else ""
    assert made(f"loadBalancing: {{algorithm: {algorithm}{keys}}}").balancing.algorithm

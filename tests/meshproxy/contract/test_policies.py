import msgspec
import pytest

from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    FaultSpec,
    HashKeySpec,
    HealthCheckSpec,
    HedgeSpec,
    LimitsSpec,
    LoadBalancingSpec,
    MirrorSpec,
    OutlierSpec,
    RateLimitSpec,
    RetryBudgetSpec,
    RetrySpec,
    SessionPersistenceSpec,
    SheddingSpec,
)
from meshproxy.contract.resources import ClusterSpec, RouteSpec

ROUTE = RouteSpec(
    name="HTTPRoute/default/catalog/0",
    request_timeout=2_000,
    backend_request_timeout=500,
    retry=RetrySpec(codes=(503,), conditions=("reset",), hedge=HedgeSpec()),
    session=SessionPersistenceSpec(name="session"),
    mirrors=(MirrorSpec(cluster="default/catalog-v2:80", percent=12.5),),
    faults=(FaultSpec(name="slow", delay=100, delay_percent=50),),
    rate_limits=(RateLimitSpec(name="few", requests=5, per="identity"),),
)
CLUSTER = ClusterSpec(
    name="default/catalog:80",
    retry_budget=RetryBudgetSpec(percent=10),
    limits=LimitsSpec(requests=10, retries=1),
    breaker=CircuitBreakerSpec(probes=1),
    outliers=OutlierSpec(consecutive_5xx=3),
    health_check=HealthCheckSpec(type="grpc", service="shop"),
    balancing=LoadBalancingSpec(
        algorithm="maglev", hash_keys=(HashKeySpec(source="header", name="x-user"),)
    ),
    shedding=SheddingSpec(default_criticality="sheddable"),
)


@pytest.mark.parametrize("spec", [ROUTE, CLUSTER], ids=["route", "cluster"])
def test_policies_travel_with_what_they_are_for(spec: RouteSpec | ClusterSpec) -> None:
    """All of them at once survive the wire."""
    assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        (RetrySpec, {"attempts": 0}),
        (RetrySpec, {"codes": [200]}),
        (RetrySpec, {"conditions": ["whenever"]}),
        (HedgeSpec, {"percentile": 100}),
        (CircuitBreakerSpec, {"probes": 0}),
        (OutlierSpec, {"max_ejected_percent": 101}),
        (FaultSpec, {"name": "x", "abort_status": 99}),
        (FaultSpec, {"name": "x", "abort_grpc_status": 0}),
        (RateLimitSpec, {"name": "x"}),
        (LoadBalancingSpec, {"algorithm": "fastest"}),
    ],
)
def test_nonsense_is_refused(policy: type, wrong: dict[str, object]) -> None:
    """By the contract already, before anything could act on it."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, policy)

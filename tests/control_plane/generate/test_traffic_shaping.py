from control_plane.generate.traffic_shaping import GRPC_STATUS, faults, rate_limits
from control_plane.resources.policies import FaultInjection, RateLimitPolicy
from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec, PathMatchSpec
from meshproxy.contract.policies import FaultSpec, RateLimitSpec
from tests.helpers.mesh import policy, source

WHO = "from: {principals: [spiffe://mesh.local/ns/a/*]}"


def test_rate_limits() -> None:
    """A spec for each rule, named after it or its number."""
    rules = (
        "{requests: 5}, {name: each, requests: 1, interval: 1m, burst: 3, per: {type: Identity}, "
        f"match: {{method: POST}}, {WHO}}}, "
        "{requests: 2, per: {type: Header, header: x-user}}"
    )
    resource = source(policy("p", f"rules: [{rules}]", kind="RateLimitPolicy")).resource
    assert isinstance(resource, RateLimitPolicy)
    assert rate_limits(resource) == (
        RateLimitSpec(name="RateLimitPolicy/default/p/0", requests=5),
        RateLimitSpec(
            name="RateLimitPolicy/default/p/each",
            match=MatchSpec(path=PathMatchSpec(type="prefix", value="/"), method="POST"),
            source=IdentityMatchSpec(principals=("spiffe://mesh.local/ns/a/*",)),
            per="identity",
            requests=1,
            interval=60_000,
            burst=3,
        ),
        RateLimitSpec(
            name="RateLimitPolicy/default/p/2", per="header", header="x-user", requests=2
        ),
    )


def test_faults() -> None:
    """What a rule does not do has a share of nothing."""
    rules = (
        f"{{name: slow, delay: {{fixedDelay: 2s}}, {WHO}}}, "
        "{abort: {httpStatus: 503, percent: 0.5}}, "
        "{delay: {fixedDelay: 1ms, percent: 1}, abort: {grpcStatus: UNAVAILABLE}}"
    )
    resource = source(policy("p", f"rules: [{rules}]", kind="FaultInjection")).resource
    assert isinstance(resource, FaultInjection)
    assert faults(resource) == (
        FaultSpec(
            name="FaultInjection/default/p/slow",
            source=IdentityMatchSpec(principals=("spiffe://mesh.local/ns/a/*",)),
            delay=2_000,
            delay_percent=100.0,
        ),
        FaultSpec(name="FaultInjection/default/p/1", abort_status=503, abort_percent=0.5),
        FaultSpec(
            name="FaultInjection/default/p/2",
            delay=1,
            delay_percent=1.0,
            abort_grpc_status=14,
            abort_percent=100.0,
        ),
    )


def test_grpc_statuses_have_their_numbers() -> None:
    """Those of the gRPC protocol, OK left out."""
    assert len(GRPC_STATUS) == 16
    assert (GRPC_STATUS["CANCELLED"], GRPC_STATUS["UNAUTHENTICATED"]) == (1, 16)
    assert (GRPC_STATUS["RESOURCE_EXHAUSTED"], GRPC_STATUS["UNAVAILABLE"]) == (8, 14)

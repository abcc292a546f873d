import pytest

from control_plane.generate.grpc_routes import compiled as grpc_compiled
from control_plane.generate.http_routes import compiled as http_compiled
from control_plane.resources.gateway_api import GRPCRoute, HTTPRoute
from control_plane.store import State
from meshproxy.contract.policies import MirrorSpec, RetrySpec, SessionPersistenceSpec
from meshproxy.contract.resources import BackendSpec, RouteSpec
from tests.helpers.mesh import policy, route, service, state

FAULTS = policy("f", "rules: [{abort: {httpStatus: 418}}]", kind="FaultInjection", target="z")
LIMITS = policy("l", "rules: [{requests: 1}]", kind="RateLimitPolicy", target="z")


def made(mesh: State) -> RouteSpec:
    http = [one for one in mesh.routes.values() if isinstance(one, HTTPRoute)]
    grpc = [one for one in mesh.routes.values() if isinstance(one, GRPCRoute)]
    (spec,) = (
        *http_compiled(http, mesh.services, mesh.policies),
        *grpc_compiled(grpc, mesh.services, mesh.policies),
    )
    return spec


def one(rule: str, kind: str = "HTTPRoute", *more: str) -> RouteSpec:
    backends = "backendRefs: [{name: a, port: 80}]"
    text = route("r", "a", f"[{{{rule}{', ' if rule else ''}{backends}}}]", kind=kind)
    return made(state(service("a"), service("b"), text, *more))


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_what_a_rule_does_not_say_the_policy_decides(kind: str) -> None:
    """None is not "no limit": it leaves the cluster's."""
    spec = one("", kind)
    assert (spec.request_timeout, spec.backend_request_timeout, spec.retry) == (None, None, None)
    assert (spec.session, spec.mirrors, spec.faults, spec.rate_limits) == (None, (), (), ())


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_timeouts(kind: str) -> None:
    """0s is no limit, whatever the policy says."""
    spec = one("timeouts: {request: 10s, backendRequest: 1500ms}", kind)
    assert (spec.request_timeout, spec.backend_request_timeout) == (10_000, 1_500)
    spec = one("timeouts: {request: 0s}", kind)
    assert (spec.request_timeout, spec.backend_request_timeout) == (0, None)


@pytest.mark.parametrize(
    ("retry", "spec"),
    [
        ("{}", RetrySpec()),
        ("{attempts: 0}", RetrySpec(attempts=1)),
        ("{attempts: 3, codes: [500, 503]}", RetrySpec(attempts=4, codes=(500, 503))),
        ("{backoff: 100ms}", RetrySpec(backoff=100)),
        ("{backoff: 5s}", RetrySpec(backoff=5_000, max_backoff=5_000)),
    ],
)
def test_retry(retry: str, spec: RetrySpec) -> None:
    """The Gateway API counts "in addition to the initial request", the contract all tries."""
    assert one(f"retry: {retry}").retry == spec


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_session(kind: str) -> None:
    """As in a TrafficPolicy."""
    spec = one("sessionPersistence: {sessionName: s, type: Header}", kind)
    assert spec.session == SessionPersistenceSpec(name="s", type="header")


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize(
    ("share", "percent"),
    [
        ("", 100.0),
        (", percent: 10", 10.0),
        (", percent: 0", 0.0),
        (", fraction: {numerator: 1, denominator: 8}", 12.5),
        (", fraction: {numerator: 7}", 7.0),
    ],
)
def test_mirrors(kind: str, share: str, percent: float) -> None:
    """All of them, or the share that is given."""
    mirror = f"{{type: RequestMirror, requestMirror: {{backendRef: {{name: b, port: 80}}{share}}}}}"
    spec = one(f"filters: [{mirror}]", kind)
    assert spec.mirrors == (MirrorSpec(cluster="default/b:80", percent=percent),)


def test_a_mirror_that_is_not_there_is_left_out() -> None:
    """The others, and the request itself, are none the worse."""
    refs = ("{name: missing, port: 80}", "{name: b, port: 80}")
    mirrors = (f"{{type: RequestMirror, requestMirror: {{backendRef: {ref}}}}}" for ref in refs)
    spec = one(f"filters: [{', '.join(mirrors)}]")
    assert spec.mirrors == (MirrorSpec(cluster="default/b:80"),)
    assert spec.backends == (BackendSpec(cluster="default/a:80"),)


def extension(kind: str, name: str, group: str = "meshproxy.io") -> str:
    return f"{{type: ExtensionRef, extensionRef: {{group: {group}, kind: {kind}, name: {name}}}}}"


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_extensions(kind: str) -> None:
    """Faults and rate limits of the route's own namespace."""
    both = f"{extension('FaultInjection', 'f')}, {extension('RateLimitPolicy', 'l')}"
    spec = one(f"filters: [{both}]", kind, FAULTS, LIMITS, service("z"))
    assert [fault.name for fault in spec.faults] == ["FaultInjection/default/f/0"]
    assert [limit.name for limit in spec.rate_limits] == ["RateLimitPolicy/default/l/0"]
    assert spec.backends


@pytest.mark.parametrize(
    "ref",
    [
        extension("FaultInjection", "missing"),
        extension("RateLimitPolicy", "f"),
        extension("TrafficPolicy", "p"),
        extension("FaultInjection", "f", "example.com"),
    ],
)
def test_an_extension_that_is_not_there_is_never_skipped(ref: str) -> None:
    """Its rule leads nowhere, which a proxy answers with 500."""
    texts = (FAULTS, policy("p", "", target="z"), service("z"))
    spec = one(f"filters: [{ref}]", "HTTPRoute", *texts)
    assert (spec.backends, spec.redirect) == ((), None)

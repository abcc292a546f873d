from pathlib import Path

import pytest

from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from tests.helpers.mesh import policy, route, service, tcp_route, tls_route


def unresolved(*texts: str) -> list[str]:
    files = {Path(f"{n}.yaml"): examine(text, Path(f"{n}.yaml")) for n, text in enumerate(texts)}
    state = state_of(choose(files, {}), Placements())
    assert all(finding.severity == "unresolved" for finding in state.findings)
    assert state.routes or not texts
    return [str(finding) for finding in state.findings]


def test_what_resolves_is_silent() -> None:
    """Also across files and namespaces."""
    rules = "[{backendRefs: [{name: b, namespace: other, port: 80}]}]"
    assert unresolved(route("r", "a", rules), service("a"), service("b", "other")) == []


@pytest.mark.parametrize(
    ("ref", "condition"),
    [
        (
            "{name: b, port: 80}",
            (
                "ResolvedRefs=False (BackendNotFound): Service default/b does not exist, "
                "expected one of default/a"
            ),
        ),
        (
            "{name: a, port: 81}",
            (
                "ResolvedRefs=False (BackendNotFound): Service default/a has no port 81, "
                "expected one of 80"
            ),
        ),
        (
            "{group: x.io, kind: Bucket, name: a}",
            (
                "ResolvedRefs=False (InvalidKind): x.io/Bucket cannot be a backend, "
                'expected group "", kind Service'
            ),
        ),
    ],
)
def test_backends_that_do_not_resolve(ref: str, condition: str) -> None:
    """The route applies; the condition says why a share of it is answered 500, and where."""
    found = unresolved(route("r", "a", f"[{{backendRefs: [{ref}]}}]"), service("a"))
    in_force = " (in force: its share of requests is answered 500)"
    assert found == [
        f"0.yaml:7: HTTPRoute/default/r: spec.rules[0].backendRefs[0]: {condition}{in_force}"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("catalog-v3", "default/catalog-v2"), ("reviews", "other/reviews")],
)
def test_a_backend_that_does_not_exist_may_be_a_slip(name: str, meant: str) -> None:
    """A name like one of the namespace, or the right name in another, is proposed."""
    texts = (service("catalog-v2"), service("reviews", "other"))
    parent = route("r", "catalog-v2", f"[{{backendRefs: [{{name: {name}, port: 80}}]}}]")
    (only,) = unresolved(parent, *texts)
    assert f'Service default/{name} does not exist, did you mean "{meant}"? (in force' in only


@pytest.mark.parametrize(
    ("old", "new", "condition"),
    [
        ("name: a", "name: x", "NoMatchingParent): Service default/x does not exist"),
        ("name: a", "name: a, port: 81", "NoMatchingParent): Service default/a has no port 81"),
        ("name: a", "name: a, sectionName: y", 'NoMatchingParent): Service default/a has no port "y"'),
        ("kind: Service", "kind: Gateway", "NoMatchingParent): Gateway is no parent in a mesh"),
    ],
)  # fmt: skip
def test_parents_that_do_not_resolve(old: str, new: str, condition: str) -> None:
    """A route attached to nothing says so."""
    (only,) = unresolved(route("r", "a", "[{}]").replace(old, new), service("a"))
    assert "spec.parentRefs[0]: Accepted=False (" + condition in only


@pytest.mark.parametrize(
    ("kind", "consequence"),
    [
        ("HTTPRoute", "requests is answered 500"),
        ("GRPCRoute", "requests is answered UNAVAILABLE"),
        ("TCPRoute", "connections is refused"),
    ],
)
def test_the_consequence_is_that_of_the_kind(kind: str, consequence: str) -> None:
    """What becomes of the share of a backend that is not there."""
    text = route("r", "a", "[{backendRefs: [{name: b, port: 80}]}]", kind=kind)
    (only,) = unresolved(text, service("a"))
    assert only.endswith(f"(in force: its share of {consequence})")


def test_of_two_kinds_on_one_port_one_is_ignored_and_says_so() -> None:
    """GEP-1294: the rejected routes have Accepted=False with the reason Conflicted."""
    texts = [service("a"), route("r", "a", "[{}]"), tcp_route("t", "a", "a")]
    assert unresolved(*texts) == [
        (
            "2.yaml:6: TCPRoute/default/t: spec.parentRefs[0]: Accepted=False (Conflicted): port 80 "
            "of Service default/a follows HTTPRoute default/r alone: HTTPRoute goes before TCPRoute"
        )
    ]
    grpc = route("g", "a", "[{}]", kind="GRPCRoute")
    assert [line.split(": ")[1] for line in unresolved(*texts, grpc)] == [
        "HTTPRoute/default/r",
        "TCPRoute/default/t",
    ]


def test_of_two_tcp_routes_the_younger_says_so() -> None:
    """There is nothing that would tell their connections apart; of TLSRoutes there is."""
    (only,) = unresolved(service("a"), tcp_route("t", "a", "a"), tcp_route("u", "a", "a"))
    assert "TCPRoute/default/u: spec.parentRefs[0]: Accepted=False (Conflicted)" in only
    assert only.endswith("follows TCPRoute default/t alone: it is the older one")
    names = (tls_route("t", "a", "[t]", "a"), tls_route("u", "a", "[u]", "a"))
    assert unresolved(service("a"), *names) == []


def test_routes_for_different_callers_do_not_conflict() -> None:
    """A consumer's route replaces the producer's, whatever its kind."""
    consumer = tcp_route("t", "a", "a", namespace="other")
    assert unresolved(service("a"), route("r", "a", "[{}]"), consumer) == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [("tcp", "HTTPRoute"), ("https", "GRPCRoute"), ("http", "TCPRoute")],
)
def test_app_protocol_can_rule_a_route_out(said: str, kind: str) -> None:
    """As parent and as backend: nobody finds a path in opaque bytes."""
    text = route("r", "a", "[{backendRefs: [{name: a, port: 80}]}]", kind=kind)
    parent, backend = unresolved(text, service("a", app_protocol=said))
    assert (
        f"spec.parentRefs[0]: Accepted=False (NotAllowedByListeners): the appProtocol of Service "
        f"default/a allows no {kind}: port 80 is {said}"
    ) in parent
    assert (
        "spec.rules[0].backendRefs[0]: ResolvedRefs=False (UnsupportedProtocol): port 80 of "
        f"Service default/a is {said} ("
    ) in backend


def test_one_port_that_takes_the_route_is_enough() -> None:
    """The others keep what their appProtocol says."""
    two = service("a").replace(
        "[{port: 80, targetPort: http}]",
        "[{port: 80, name: x}, {port: 81, name: y, appProtocol: tcp}]",
    )
    assert unresolved(two, route("r", "a", "[{}]")) == []


def test_filters_that_a_backend_cannot_carry() -> None:
    """Skipping a filter would be worse than a refusal: the backend answers 500, and says so."""
    ref = "{name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {}}]}"
    (only,) = unresolved(route("r", "a", f"[{{backendRefs: [{ref}]}}]"), service("a"))
    assert "backendRefs[0].filters[0]: Accepted=False (UnsupportedValue): URLRewrite" in only


def test_a_mirror_that_does_not_resolve() -> None:
    """The request goes on without it, and the finding says so."""
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 80}}}"
    (found,) = unresolved(service("a"), route("r", "a", f"[{{filters: [{mirror}]}}]"))
    assert found.endswith(
        "spec.rules[0].filters[0].requestMirror.backendRef: ResolvedRefs=False (BackendNotFound): "
        "Service default/b does not exist, expected one of default/a (in force: nothing is mirrored)"
    )


@pytest.mark.parametrize(
    ("group", "kind", "name", "expected"),
    [
        (
            "meshproxy.io",
            "FaultInjection",
            "fast",
            'FilterNotFound): FaultInjection default/fast does not exist, did you mean "faults"? (in',
        ),
        (
            "meshproxy.io",
            "RateLimitPolicy",
            "faults",
            "FilterNotFound): RateLimitPolicy default/faults does not exist (in force: requests of",
        ),
        (
            "meshproxy.io",
            "TrafficPolicy",
            "p",
            (
                "InvalidKind): meshproxy.io/TrafficPolicy is no filter of the mesh, expected meshproxy.io/"
                "FaultInjection or meshproxy.io/RateLimitPolicy (in force: requests of this rule are"
            ),
        ),
    ],
)
def test_an_extension_that_does_not_resolve(
    group: str, kind: str, name: str, expected: str
) -> None:
    """It is never skipped: the rule answers 500 until it is there."""
    ref = f"{{type: ExtensionRef, extensionRef: {{group: {group}, kind: {kind}, name: {name}}}}}"
    faults = policy("faults", "rules: [{delay: {fixedDelay: 1s}}]", kind="FaultInjection")
    (found,) = unresolved(service("a"), faults, route("r", "a", f"[{{filters: [{ref}]}}]"))
    assert f"spec.rules[0].filters[0].extensionRef: ResolvedRefs=False ({expected}" in found


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_filters_that_a_backend_cannot_have(kind: str) -> None:
    """Both kinds: what the rule may, one of its backends may not."""
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}"
    rules = f"[{{backendRefs: [{{name: a, port: 80, filters: [{mirror}]}}]}}]"
    (found,) = unresolved(service("a"), route("r", "a", rules, kind=kind))
    assert (
        "backendRefs[0].filters[0]: Accepted=False (UnsupportedValue): RequestMirror is not"
        in found
    )

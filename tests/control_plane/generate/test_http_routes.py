import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.generate.http_routes import compiled
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from control_plane.resources.gateway_api import HTTPRoute
from control_plane.store import State
from meshproxy.contract import wire
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec
from meshproxy.contract.resources import (
    BackendSpec,
    HeaderModifierSpec,
    HeaderSpec,
    PathRewriteSpec,
    RedirectSpec,
    RewriteSpec,
    RouteSpec,
    VirtualHostSpec,
)
from meshproxy.routing.table import compile_virtual_host
from tests.helpers.mesh import route, service, state


def one(rule: str) -> RouteSpec:
    """Return what a route of one rule becomes."""
    mesh = state(service("a"), service("b"), route("r", "a", f"[{rule}]"))
    (spec,) = compiled(http_routes(mesh), mesh.services, mesh.policies)
    return spec


def http_routes(mesh: State) -> list[HTTPRoute]:
    return [route for route in mesh.routes.values() if isinstance(route, HTTPRoute)]


def names(mesh: State) -> list[str]:
    found = compiled(http_routes(mesh), mesh.services, mesh.policies)
    return [spec.name.removeprefix("HTTPRoute/") for spec in found]


# Order --------------------------------------------------------------------------------------------

# Each of these goes before all that follow.
BY_PRECEDENCE = [
    "{path: {type: Exact, value: /a}, method: GET}",
    "{path: {type: Exact, value: /a}}",
    "{path: {value: /long/prefix}}",
    "{path: {value: /short}, method: GET, headers: [{name: x, value: '1'}]}",
    "{path: {value: /short}, method: GET}",
    "{path: {value: /short}, headers: [{name: x, value: '1'}, {name: z, value: '1'}]}",
    "{path: {value: /short}, headers: [{name: x, value: '1'}], queryParams: [{name: q, value: v}]}",
    "{path: {value: /short}, headers: [{name: x, value: '1'}]}",
    "{path: {value: /short}, queryParams: [{name: q, value: v}, {name: p, value: v}]}",
    "{path: {value: /short}, queryParams: [{name: q, value: v}]}",
    "{path: {value: /short}}",
    "{path: {type: RegularExpression, value: /.*}}",
    "{method: GET}",
    "{}",
]


@given(st.permutations(range(len(BY_PRECEDENCE))))
def test_the_most_specific_match_is_first(order: list[int]) -> None:
    """Whatever the order in the file, and whether in one rule each or in one for all."""
    rules = ", ".join(f"{{name: m{n}, matches: [{BY_PRECEDENCE[n]}]}}" for n in order)
    mesh = state(service("a"), route("r", "a", f"[{rules}]"))
    assert names(mesh) == [f"default/r/m{n}" for n in range(len(BY_PRECEDENCE))]


def dated(name: str, created: str, namespace: str = "default") -> str:
    text = route(name, "a", "[{}]", namespace=namespace)
    return text.replace(f"namespace: {namespace}}}", f"namespace: {namespace}{created}}}", 1)


@given(st.permutations(range(5)))
def test_ties_go_to_the_oldest_then_by_name(order: list[int]) -> None:
    """A route from a file, which has no age, is the youngest."""
    texts = [
        dated("z", ", creationTimestamp: '2020-01-01T00:00:00Z'"),
        dated("b", ", creationTimestamp: '2025-01-01T00:00:00Z'"),
        dated("c", ", creationTimestamp: '2025-01-01T00:00:00Z'"),
        dated("a", ""),
        dated("a", "", namespace="other"),
    ]
    mesh = state(service("a"), *(texts[index] for index in order))
    assert names(mesh) == [
        "default/z/0",
        "default/b/0",
        "default/c/0",
        "default/a/0",
        "other/a/0",
    ]


def test_within_a_route_the_first_rule_and_match_wins() -> None:
    """The last of the tie-breaks."""
    mesh = state(
        service("a"),
        route("r", "a", "[{matches: [{method: GET}, {method: PUT}]}, {matches: [{method: POST}]}]"),
    )
    found = compiled(http_routes(mesh), mesh.services, mesh.policies)
    assert [spec.match.method for spec in found] == ["GET", "PUT", "POST"]


# One rule, one match ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "spec"),
    [
        ("{}", MatchSpec(path=PathMatchSpec(type="prefix", value="/"))),
        (
            "{path: {type: RegularExpression, value: a+}, method: PUT}",
            MatchSpec(path=PathMatchSpec(type="regex", value="a+"), method="PUT"),
        ),
        (
            (
                "{path: {type: Exact, value: /a}, headers: [{name: X, value: v}], "
                "queryParams: [{name: q, value: v+, type: RegularExpression}]}"
            ),
            MatchSpec(
                path=PathMatchSpec(type="exact", value="/a"),
                headers=(ValueMatchSpec(name="X", value="v"),),
                query=(ValueMatchSpec(name="q", type="regex", value="v+"),),
            ),
        ),
    ],
)
def test_matches(match: str, spec: MatchSpec) -> None:
    """Word for word, and without a path the prefix that every path has."""
    assert one(f"{{matches: [{match}]}}").match == spec
    assert one("{matches: []}").match == MatchSpec(path=PathMatchSpec(type="prefix", value="/"))


def test_filters_of_a_rule() -> None:
    """Each standard filter has its place in the route."""
    headers = "{set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}"
    spec = one(
        f"{{name: x, filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {headers}}}, "
        f"{{type: ResponseHeaderModifier, responseHeaderModifier: {headers}}}, {{type: URLRewrite, "
        "urlRewrite: {hostname: h, path: {type: ReplaceFullPath, replaceFullPath: /f}}}]}"
    )
    modifier = HeaderModifierSpec(
        set=(HeaderSpec(name="a", value="b"),), add=(HeaderSpec(name="c", value="d"),), remove=("e",)
    )  # fmt: skip
    assert spec == RouteSpec(
        name="HTTPRoute/default/r/x",
        match=MatchSpec(path=PathMatchSpec(type="prefix", value="/")),
        request_headers=modifier,
        response_headers=modifier,
        rewrite=RewriteSpec(hostname="h", path=PathRewriteSpec(type="full", value="/f")),
    )


def test_redirect() -> None:
    """What is not given stays open, for the proxy to fill from the request."""
    spec = one(
        "{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301, "
        "port: 8443, path: {type: ReplacePrefixMatch, replacePrefixMatch: /n}}}]}"
    )
    assert spec.redirect == RedirectSpec(
        status=301, scheme="https", port=8443, path=PathRewriteSpec(type="prefix", value="/n")
    )
    assert one("{filters: [{type: RequestRedirect, requestRedirect: {}}]}").redirect == (
        RedirectSpec(status=302)
    )


def test_backends() -> None:
    """A reference that leads nowhere, or a filter we lack, keeps its weight and has no cluster."""
    rewritten = "{name: b, port: 80, weight: 2, filters: [{type: URLRewrite, urlRewrite: {}}]}"
    changed = (
        "{name: b, port: 80, filters: [{type: RequestHeaderModifier, "
        "requestHeaderModifier: {remove: [x]}}]}"
    )
    refs = f"{{name: a, port: 80, weight: 0}}, {{name: a, port: 81, weight: 3}}, {rewritten}"
    assert one(f"{{backendRefs: [{refs}, {changed}]}}").backends == (
        BackendSpec(cluster="default/a:80", weight=0),
        BackendSpec(cluster=None, weight=3),
        BackendSpec(cluster=None, weight=2),
        BackendSpec(cluster="default/b:80", request_headers=HeaderModifierSpec(remove=("x",))),
    )


# What validates, compiles -------------------------------------------------------------------------

JSON = dict[str, Any]
HEADER_NAMES = st.sampled_from(
    ["x-a", "X-A", "Host", "content-length", "Connection", "te", "trailer", "x-mesh-peer",
     "X_Mesh_Peer", "x-forwarded-client-cert", "a b", "", "é", "x" * 256]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "a", " a", "a\t", "a\x01", "a\x7f", "a\nb", "é", "中", "a,b", "(", "a+", "\\C", "a{1001}"]
)
PATHS = st.sampled_from(
    [
        "/",
        "",
        "/a",
        "/a/",
        "a",
        "/a?b",
        "/a#b",
        "/a b",
        "/é",
        "/a%20b",
        "/a[b]",
        "/a{b}",
        '/"',
        "//",
    ]
)
HOSTNAMES = st.sampled_from(["a.b", "A.b", "a_b", "a:80", "127.0.0.1", "[::1]", "*.a", "", "a b"])
NAMES = st.sampled_from([None, "n", "n" * 253, ".".join(["n" * 49] * 5)])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[JSON]:
    return st.fixed_dictionaries({}, optional=fields)


HEADERS = st.lists(st.fixed_dictionaries({"name": HEADER_NAMES, "value": VALUES}), max_size=2)
MODIFIER = some(set=HEADERS, add=HEADERS, remove=st.lists(HEADER_NAMES, max_size=2))
PATH_MODIFIER = st.one_of(
    st.builds(lambda v: {"type": "ReplaceFullPath", "replaceFullPath": v}, PATHS),
    st.builds(lambda v: {"type": "ReplacePrefixMatch", "replacePrefixMatch": v}, PATHS),
)
FILTERS = st.lists(
    st.one_of(
        st.builds(lambda m: {"type": "RequestHeaderModifier", "requestHeaderModifier": m}, MODIFIER),
        st.builds(lambda m: {"type": "ResponseHeaderModifier", "responseHeaderModifier": m}, MODIFIER),
        st.builds(
            lambda m: {"type": "URLRewrite", "urlRewrite": m},
            some(hostname=HOSTNAMES, path=PATH_MODIFIER),
        ),
        st.builds(
            lambda m: {"type": "RequestRedirect", "requestRedirect": m},
            some(hostname=HOSTNAMES, path=PATH_MODIFIER, scheme=st.just("https")),
        ),
    ),
    max_size=2,
)  # fmt: skip
VALUE_MATCHES = st.lists(
    st.fixed_dictionaries(
        {"name": HEADER_NAMES, "value": VALUES},
        optional={"type": st.sampled_from(["Exact", "RegularExpression"])},
    ),
    max_size=2,
)
MATCH = some(
    path=some(
        type=st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]), value=PATHS | VALUES
    ),
    headers=VALUE_MATCHES,
    queryParams=VALUE_MATCHES,
)
RULE = some(
    name=NAMES.filter(bool),
    matches=st.lists(MATCH, max_size=2),
    filters=FILTERS,
    backendRefs=st.lists(
        st.builds(lambda f: {"name": "a", "port": 80, "filters": f}, FILTERS), max_size=2
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(RULE, min_size=1, max_size=2), NAMES.filter(bool))
def test_whatever_validates_compiles_in_the_proxy(rules: list[JSON], name: str) -> None:
    """What a proxy would refuse has a finding before: one route must not hold up all the others."""
    files = {Path("s.yaml"): service("a"), Path("r.yaml"): route(name, "a", json.dumps(rules))}
    examined = {path: examine(text, path) for path, text in files.items()}
    mesh = state_of(choose(examined, {}), Placements())
    if any(finding.severity == "error" for finding in mesh.findings):
        return

    host = VirtualHostSpec(
        name="default/a:80", routes=compiled(http_routes(mesh), mesh.services, mesh.policies)
    )

    received = wire.decode(wire.encode(host), VirtualHostSpec)
    assert len(compile_virtual_host(received, {"default/a:80": "a"}).routes) == len(host.routes)

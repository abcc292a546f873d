from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.generate.grpc_routes import compiled
from control_plane.resources.gateway_api import GRPCRoute
from control_plane.resources.grpc_route import problems_of_route
from control_plane.store import State
from meshproxy.contract import wire
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec
from meshproxy.contract.resources import BackendSpec, HeaderModifierSpec, RouteSpec, VirtualHostSpec
from meshproxy.message import RequestHead, field
from meshproxy.routing.table import VirtualHost, compile_virtual_host
from tests.helpers.mesh import route, service, source, state


def specs(mesh: State) -> tuple[RouteSpec, ...]:
    routes = [route for route in mesh.routes.values() if isinstance(route, GRPCRoute)]
    return compiled(routes, mesh.services, mesh.policies)


def grpc(rules: str) -> State:
    return state(service("a"), service("b"), route("r", "a", rules, kind="GRPCRoute"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (
            "{service: shop.Books, method: GetBook}",
            PathMatchSpec(type="exact", value="/shop.Books/GetBook"),
        ),
        ("{service: shop.Books}", PathMatchSpec(type="prefix", value="/shop.Books")),
        ("{method: GetBook}", PathMatchSpec(type="regex", value="/[^/]+/GetBook")),
        (
            "{type: RegularExpression, service: 'a|b', method: 'Get|List'}",
            PathMatchSpec(type="regex", value="/(?:a|b)/(?:Get|List)"),
        ),
        (
            "{type: RegularExpression, service: 'a|b'}",
            PathMatchSpec(type="regex", value="/(?:a|b)/[^/]+"),
        ),
        (
            "{type: RegularExpression, method: 'Get.*'}",
            PathMatchSpec(type="regex", value="/[^/]+/(?:Get.*)"),
        ),
    ],
)
def test_service_and_method_are_a_path(method: str, path: PathMatchSpec) -> None:
    """gRPC over HTTP/2: ``"/" Service-Name "/" {method name}``."""
    (only,) = specs(grpc(f"[{{matches: [{{method: {method}}}]}}]"))
    assert only.match == MatchSpec(path=path, grpc=True)


def test_without_a_match_every_grpc_request() -> None:
    """And nothing that is not gRPC."""
    (only,) = specs(grpc("[{name: all}]"))
    assert only == RouteSpec(name="GRPCRoute/default/r/all", match=MatchSpec(grpc=True))


def test_headers_filters_and_backends() -> None:
    """As in an HTTPRoute; of two headers of one name the first counts."""
    modifier = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}"
    (only,) = specs(
        grpc(
            "[{matches: [{headers: [{name: v, value: '1+', type: RegularExpression}]}], filters: "
            f"[{modifier}], backendRefs: [{{name: a, port: 80, weight: 9}}, {{name: b, port: 80, "
            f"filters: [{modifier}]}}, {{name: missing, port: 80}}]}}]"
        )
    )
    changes = HeaderModifierSpec(remove=("x",))
    assert only == RouteSpec(
        name="GRPCRoute/default/r/0",
        match=MatchSpec(grpc=True, headers=(ValueMatchSpec(name="v", type="regex", value="1+"),)),
        request_headers=changes,
        backends=(
            BackendSpec(cluster="default/a:80", weight=9),
            BackendSpec(cluster="default/b:80", request_headers=changes),
            BackendSpec(cluster=None),
        ),
    )


# Each of these goes before all that follow.
BY_PRECEDENCE = [
    "{method: {service: long.Service, method: Method}, headers: [{name: x, value: y}]}",
    "{method: {service: long.Service, method: Method}}",
    "{method: {service: long.Service, method: Get}}",
    "{method: {service: long.Service}, headers: [{name: x, value: y}, {name: z, value: y}]}",
    "{method: {service: long.Service}, headers: [{name: x, value: y}]}",
    "{method: {service: long.Service}}",
    "{method: {service: Short, method: MuchLongerMethod}}",
    "{method: {method: MuchLongerMethod}}",
    "{method: {type: RegularExpression, service: '.*', method: '.*'}, headers: [{name: x, value: y}]}",
    "{method: {type: RegularExpression, service: '.*'}}",
    "{headers: [{name: x, value: y}]}",
    "{}",
]


@given(st.permutations(range(len(BY_PRECEDENCE))))
def test_the_most_specific_match_is_first(order: list[int]) -> None:
    """GRPCRouteRule.matches: characters of the service, of the method, then header matches."""
    rules = ", ".join(f"{{name: m{n}, matches: [{BY_PRECEDENCE[n]}]}}" for n in order)
    names = [spec.name.rpartition("/")[2] for spec in specs(grpc(f"[{rules}]"))]
    assert names == [f"m{n}" for n in range(len(BY_PRECEDENCE))]


NAMES = st.sampled_from(["", "a", "A.b", "b", ".a", "a.b.c", "Get", "(", "a|b", ".*", "a/b", "é"])


@given(st.sampled_from(["Exact", "RegularExpression"]), NAMES, NAMES)
def test_whatever_validates_compiles_and_finds_its_calls(kind: str, name: str, method: str) -> None:
    """What a proxy would refuse has a finding before; what it takes leads there."""
    one: dict[str, Any] = {"type": kind, "service": name, "method": method}
    text = f"[{{matches: [{{method: {wire.encode(one).decode()}}}]}}]"
    mesh = state(service("a"))
    parsed = examined(route("r", "a", text, kind="GRPCRoute"))
    if list(problems_of_route(parsed)):
        return
    host: VirtualHost[str] = compile_virtual_host(
        VirtualHostSpec(name="h", routes=compiled([parsed], mesh.services, mesh.policies)), {}
    )
    if kind == "Exact":
        path = f"/{name or 'any.Service'}/{method or 'Any'}".encode()
        assert host.find(call(path)) is not None
        assert host.find(call(path, content_type=b"application/json")) is None
        assert host.find(call(b"/other.Service/Other")) is None


def examined(text: str) -> GRPCRoute:
    resource = source(text).resource
    assert isinstance(resource, GRPCRoute)
    return resource


def call(path: bytes, content_type: bytes = b"application/grpc+proto") -> RequestHead:
    return RequestHead(b"POST", b"a", path, [field(b"content-type", content_type)])

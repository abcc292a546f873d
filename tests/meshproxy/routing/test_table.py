from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec
from meshproxy.contract.policies import FaultSpec, MirrorSpec, RateLimitSpec
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
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field
from meshproxy.policies.rate_limit import Refused
from meshproxy.routing.table import (
    Authorities,
    Route,
    VirtualHost,
    compile_virtual_host,
)

CLUSTERS = {"catalog": "the catalog cluster"}


def head(path: bytes, method: bytes = b"GET", version: bytes | None = None) -> RequestHead:
    fields = [] if version is None else [field(b"version", version)]
    return RequestHead(method, b"catalog:80", path, fields)


def route(name: str, kind: Literal["exact", "prefix", "regex"], value: str) -> RouteSpec:
    return RouteSpec(name=name, match=MatchSpec(path=PathMatchSpec(type=kind, value=value)))


def compiled(*routes: RouteSpec) -> VirtualHost[str]:
    return compile_virtual_host(VirtualHostSpec(name="catalog", routes=routes), CLUSTERS)


def found(host: VirtualHost[str], path: bytes) -> str | None:
    route = host.find(head(path))
    return None if route is None else route.name


# Finding a route ----------------------------------------------------------------------------------


def test_the_first_match_decides_not_the_most_specific() -> None:
    """Order is the control plane's business; the table keeps it."""
    host = compiled(route("wide", "prefix", "/a"), route("narrow", "exact", "/a/b"))
    assert found(host, b"/a/b") == "wide"
    host = compiled(route("narrow", "exact", "/a/b"), route("wide", "prefix", "/a"))
    assert found(host, b"/a/b") == "narrow"
    assert found(host, b"/a/c") == "wide"


def test_no_match_is_none() -> None:
    """An attached route stops fall-through, so this becomes a 404."""
    assert found(compiled(), b"/") is None
    assert found(compiled(route("a", "prefix", "/a")), b"/b") is None


def test_a_catch_all_ahead_hides_what_follows() -> None:
    """The short cut for the commonest table obeys the same rule."""
    assert found(compiled(RouteSpec(name="all"), route("b", "exact", "/b")), b"/b") == "all"


segments = st.sampled_from(["a", "b", "ab", ""])
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
path_specs = st.one_of(
    st.none(),
    st.builds(PathMatchSpec, type=st.sampled_from(["exact", "prefix"]), value=paths),
    st.builds(
        PathMatchSpec, type=st.just("regex"), value=st.sampled_from(["/a.*", "/[ab]", "/(a/)*b"])
    ),
)
matches = st.builds(
    MatchSpec,
    path=path_specs,
    method=st.sampled_from([None, "GET", "POST"]),
    headers=st.sampled_from([(), (), (ValueMatchSpec(name="version", value="2"),)]),
)


@settings(deadline=None)
@given(
    st.lists(matches, max_size=12),
    st.lists(
        st.tuples(
            paths.map(str.encode) | st.just(b"*"),
            st.sampled_from([b"", b"?", b"?a=/a/b"]),
            st.sampled_from([b"GET", b"POST"]),
            st.sampled_from([None, b"1", b"2"]),
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_the_index_gives_what_a_walk_gives(
    specs: list[MatchSpec], requests: list[tuple[bytes, bytes, bytes, bytes | None]]
) -> None:
    """For any table and any request, the result is the first route whose match holds."""
    host = compiled(*(RouteSpec(name=str(i), match=spec) for i, spec in enumerate(specs)))
    for path, query, method, version in requests:
        request = head(path + query, method, version)
        walked = next((r for r in host.routes if r.match.holds(request)), None)
        assert host.find(request) is walked


def test_a_path_of_many_segments_is_not_cut_into_all_of_them() -> None:
    """The client chooses the segments; the work follows the longest prefix of the configuration."""

    class Path(bytes):
        cuts = 0

        def find(self, *arguments: Any) -> int:
            self.cuts += arguments[0] == b"/"
            return super().find(*arguments)

    path = Path(b"/a" * 10_000)
    assert compiled(route("a", "prefix", "/a/b")).find(head(path)) is None
    assert path.cuts == 2, "the one that may be, and that there is no other"


# Compiling ----------------------------------------------------------------------------------------


def test_a_route_carries_what_its_spec_says() -> None:
    """Backends are resolved to clusters; modifiers and rewrite are made ready."""
    host = compiled(
        RouteSpec(
            name="r",
            match=MatchSpec(path=PathMatchSpec(type="prefix", value="/api/")),
            rewrite=RewriteSpec(path=PathRewriteSpec(type="prefix", value="/v1")),
            request_headers=HeaderModifierSpec(add=(HeaderSpec(name="X-A", value="1"),)),
            backends=(BackendSpec(cluster="catalog"), BackendSpec(cluster=None, weight=0)),
        )
    )
    request = head(b"/api/x?y")
    route = host.find(request)
    assert route is not None
    assert route.redirect is None
    assert route.response_headers is None
    assert route.request_headers is not None
    assert route.request_headers.apply([]) == [(b"x-a", b"1", b"X-A: 1")]
    assert route.rewrite is not None
    route.rewrite.apply(request)
    assert request.path == b"/v1/x?y"
    assert route.split is not None
    backend = route.split.choose(0.5)
    assert backend is not None
    assert backend.cluster == "the catalog cluster"


def test_a_route_that_redirects_or_leads_nowhere_has_no_split() -> None:
    """The exchange tells both apart by `redirect`."""
    host = compiled(
        RouteSpec(name="r", redirect=RedirectSpec(), backends=(BackendSpec(cluster="catalog"),)),
        RouteSpec(name="n"),
    )
    assert host.routes[0].redirect is not None
    assert host.routes[0].split is None
    assert host.routes[1].split is None


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (route("r", "regex", "("), "routes[1].match.path.value"),
        (
            RouteSpec(name="r", backends=(BackendSpec(cluster="nowhere"),)),
            "routes[1].backends[0].cluster",
        ),
        (
            RouteSpec(
                name="r",
                rewrite=RewriteSpec(path=PathRewriteSpec(type="prefix", value="/x")),
                match=MatchSpec(path=PathMatchSpec(type="exact", value="/a")),
            ),
            "routes[1].rewrite.path",
        ),
        (
            RouteSpec(
                name="r",
                response_headers=HeaderModifierSpec(set=(HeaderSpec(name="a b", value=""),)),
            ),
            "routes[1].response_headers.set[0].name",
        ),
        (
            RouteSpec(name="r", redirect=RedirectSpec(hostname="a/b")),
            "routes[1].redirect.hostname",
        ),
    ],
)
def test_errors_say_where(spec: RouteSpec, path: str) -> None:
    """The path leads to the field, through the index of the route."""
    with pytest.raises(ContractError) as caught:
        compiled(RouteSpec(name="fine"), spec)
    assert caught.value.path == path


# Authorities --------------------------------------------------------------------------------------


def host(name: str, *domains: str) -> VirtualHost[str]:
    return compile_virtual_host(VirtualHostSpec(name=name, domains=domains), CLUSTERS)


def test_authorities_lead_to_their_virtual_host() -> None:
    """Asked twice, so that what is remembered is checked as well."""
    a, b = host("a", "a:80", "a.default:80"), host("b", "b:8080")
    authorities = Authorities([a, b])
    for _ in range(2):
        assert authorities.find(b"A") is a
        assert authorities.find(b"a.default.") is a
        assert authorities.find(b"b:8080") is b
        assert authorities.find(b"b") is None
        assert authorities.find(b"c") is None


def test_the_star_takes_the_rest_but_not_nonsense() -> None:
    """What is not an authority belongs to nobody."""
    a, rest = host("a", "a:80"), host("rest", "*")
    authorities = Authorities([a, rest])
    assert authorities.find(b"a") is a
    assert authorities.find(b"else:9") is rest
    assert authorities.find(b"a:b:c") is None


@pytest.mark.parametrize("domain", ["", "*.example", "a:b"])
def test_a_domain_that_is_no_authority_is_refused(domain: str) -> None:
    """It could never match."""
    with pytest.raises(ContractError) as caught:
        Authorities([host("a", "fine:80", domain)])
    assert caught.value.path == "virtual_host/a domains[1]"


@pytest.mark.parametrize("domain", ["x:80", "*"])
def test_two_virtual_hosts_cannot_claim_one_domain(domain: str) -> None:
    """Which of them would win must not depend on their order."""
    with pytest.raises(ContractError, match="belongs to virtual_host/a already") as caught:
        Authorities([host("a", domain), host("b", domain)])
    assert caught.value.path == "virtual_host/b domains[0]"


def test_what_is_remembered_is_bounded() -> None:
    """Clients choose authorities: a hundred thousand of them must not stay in memory."""
    authorities = Authorities([host("rest", "*")])
    for number in range(5_000):
        authorities.find(b"host-%d" % number)
    authorities.find(b"x" * 5_000)
    assert len(authorities._remembered) <= 1024
    assert max(map(len, authorities._remembered)) < 300


# Policies ------------------------------------------------------------------------------------------


LIMIT = RateLimitSpec(name="api", requests=1, interval=60_000)


def limited(
    *rules: tuple[str, tuple[RateLimitSpec, ...]],
    shared: tuple[RateLimitSpec, ...] = (),
    before: VirtualHost[str] | None = None,
) -> VirtualHost[str]:
    """Return a virtual host of rules with these limits."""
    routes = tuple(RouteSpec(name=name, rate_limits=limits) for name, limits in rules)
    spec = VirtualHostSpec(name="host", routes=routes, rate_limits=shared)
    return compile_virtual_host(spec, {}, before)


def asks(route: Route[str]) -> bool:
    """Say whether a request of this route is let through."""
    assert route.rate_limit is not None
    head = RequestHead(b"GET", b"catalog", b"/", [])
    return not isinstance(route.rate_limit.ask(head, None, 0.0), Refused)


def test_a_limit_of_a_rule_is_one_for_all_its_matches() -> None:
    """Two routes of one name are one rule; another rule has its own; the host's is everybody's."""
    one, same, other = limited(("a", (LIMIT,)), ("a", (LIMIT,)), ("b", (LIMIT,))).routes
    assert asks(one)
    assert not asks(same)
    assert asks(other)
    one, other = limited(("a", ()), ("b", ()), shared=(LIMIT,)).routes
    assert asks(one)
    assert not asks(other)


def test_a_limit_that_stays_keeps_its_buckets() -> None:
    """A change elsewhere in the configuration is no gift of tokens; a changed limit begins anew."""
    before = limited(("a", (LIMIT,)))
    assert asks(before.routes[0])
    after = limited(("a", (LIMIT,)), ("b", ()), before=before)
    assert not asks(after.routes[0])
    assert after.routes[1].rate_limit is None
    more = RateLimitSpec(name="api", requests=2, interval=60_000)
    assert asks(limited(("a", (more,)), before=after).routes[0])


def test_without_policies_there_is_nothing_to_ask() -> None:
    """One look at each attribute is all that they cost."""
    [route] = limited(("a", ())).routes
    assert (route.rate_limit, route.faults, route.mirroring) == (None, None, None)


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"mirrors": (MirrorSpec(cluster="nowhere"),)}, "routes[0].mirrors[0].cluster"),
        ({"faults": (FaultSpec(name="a"),)}, "routes[0].faults[0]"),
        (
            {"rate_limits": (RateLimitSpec(name="a", per="header", requests=1),)},
            "routes[0].rate_limits[0].header",
        ),
    ],
)
def test_a_policy_that_cannot_be_obeyed(more: dict[str, Any], path: str) -> None:
    """The error says where it stands."""
    with pytest.raises(ContractError) as caught:
        compile_virtual_host(VirtualHostSpec(name="h", routes=(RouteSpec(name="a", **more),)), {})
    assert caught.value.path == path

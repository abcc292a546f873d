"""Whole snapshots against golden files, and what must hold for any mesh."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from control_plane.store import State
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot
from tests.helpers.golden import assert_golden
from tests.helpers.mesh import TRUST, policy, route, service, state, tcp_route, tls_route, workload

GOLDEN = Path(__file__).parent / "golden"

PLACED = {
    f"{namespace}/{name}": Placement(
        app_ports={8080: 20000 + index},
        inbound_ports={8080: 21000 + index},
        outbound_port=22000 + index,
        admin_port=23000 + index,
        service_ports={"default/catalog:80": 24000 + index, "default/gone:80": 25000 + index},
    )
    for index, (namespace, name) in enumerate(
        [("default", "storefront"), ("default", "catalog"), ("other", "client")]
    )
}
TEXTS = (
    service("catalog"),
    service("catalog-v2"),
    service("storefront"),
    workload("catalog"),
    workload("storefront"),
    workload("client", namespace="other"),
    route(
        "split",
        "catalog",
        "[{name: canary, matches: [{headers: [{name: x-canary, value: yes!}]}], backendRefs: "
        "[{name: catalog-v2, port: 80}]}, {backendRefs: [{name: catalog, port: 80, weight: 9}, "
        "{name: missing, port: 80}]}]",
    ),
    route(
        "mine",
        "catalog",
        "[{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, "
        "replacePrefixMatch: /v1}}}], matches: [{path: {value: /api}}], backendRefs: "
        "[{name: catalog, namespace: default, port: 80}]}]",
        namespace="other",
    ),
)
# Everything that is not an HTTPRoute, in a mesh of its own.
PROTOCOLS = state(
    service("shop"),
    service("books"),
    service("books-v2"),
    service("db", app_protocol="postgresql"),
    service("db-new", app_protocol="postgresql"),
    service("legacy", app_protocol="https"),
    service("static", app_protocol="http"),
    workload("shop"),
    workload("books"),
    workload("db"),
    route(
        "books",
        "books",
        "[{name: get, matches: [{method: {service: shop.v1.Books, method: GetBook}}, "
        "{method: {service: shop.v1.Books}, headers: [{name: x-preview, value: 'yes'}]}], "
        "backendRefs: [{name: books-v2, port: 80}]}, {backendRefs: [{name: books, port: 80}]}]",
        kind="GRPCRoute",
    ),
    tcp_route("move", "db", "db", "db-new", "missing"),
    tls_route("old", "legacy", "['*.legacy.example', legacy.example]", "legacy"),
    placements={
        f"default/{name}": Placement(
            app_ports={8080: 20000 + index},
            inbound_ports={8080: 21000 + index},
            outbound_port=22000 + index,
            admin_port=23000 + index,
            service_ports={
                f"default/{service}:80": 24000 + 10 * index + number
                for number, service in enumerate(["books", "db", "legacy", "shop", "static"])
            },
        )
        for index, name in enumerate(["shop", "books", "db"])
    },
)
RICH = state(*TEXTS, placements=PLACED)


@pytest.mark.parametrize("name", ["default/storefront", "default/catalog", "other/client"])
def test_golden(name: str) -> None:
    """What each proxy of a small mesh is told, to the byte."""
    assert_golden(generate(RICH, name, TRUST), GOLDEN / f"{name.replace('/', '-')}.json")


# Every policy, in a mesh of its own: who calls, and who is called.
POLICIES = state(
    service("shop"),
    service("books"),
    service("copy"),
    workload("shop").replace("labels: {", "labels: {topology.kubernetes.io/zone: za, "),
    workload("books").replace("labels: {", "labels: {topology.kubernetes.io/zone: zb, "),
    policy(
        "books",
        "timeouts: {request: 10s, streamIdle: 1h}, retry: {attempts: 3, codes: [503]}, "
        "retryConstraint: {budget: {percent: 10}}, limits: {maxRequests: 100}, circuitBreaker: {}, "
        "outlierDetection: {consecutive5xxErrors: 3}, healthCheck: {http: {path: /up}}, "
        "loadBalancing: {algorithm: RingHash, hashKeys: [{type: SourceIdentity}]}, "
        "sessionPersistence: {}, maxConnectionAge: 10m, loadShedding: {}",
        target="books",
    ),
    policy("copy", "outlierDetection: {enabled: false}", target="copy"),
    policy("limits", "rules: [{name: all, requests: 100}]", "books", kind="RateLimitPolicy"),
    policy("faults", "rules: [{delay: {fixedDelay: 1s}}]", "books", kind="FaultInjection"),
    route(
        "books",
        "books",
        "[{timeouts: {backendRequest: 1s}, retry: {attempts: 1}, sessionPersistence: {sessionName: s}, "
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, "
        "percent: 1}}, {type: ExtensionRef, extensionRef: {group: meshproxy.io, "
        "kind: RateLimitPolicy, name: limits}}], backendRefs: [{name: books, port: 80}]}]",
    ),
    placements={
        f"default/{name}": Placement(
            app_ports={8080: 20000 + index},
            inbound_ports={8080: 21000 + index},
            outbound_port=22000 + index,
            admin_port=23000 + index,
        )
        for index, name in enumerate(["shop", "books"])
    },
)


@pytest.mark.parametrize("name", ["shop", "books"])
def test_golden_of_every_policy(name: str) -> None:
    """At the caller, and beside the app that is called."""
    snapshot = generate(POLICIES, f"default/{name}", TRUST)
    assert_consistent(snapshot)
    assert_golden(snapshot, GOLDEN / f"policies-{name}.json")


@pytest.mark.parametrize("name", ["shop", "books", "db"])
def test_golden_of_every_protocol(name: str) -> None:
    """gRPC, TCP, TLS, what says that it is HTTP and what says nothing: who calls, who is called."""
    snapshot = generate(PROTOCOLS, f"default/{name}", TRUST)
    assert_consistent(snapshot)
    assert_golden(snapshot, GOLDEN / f"protocols-{name}.json")


def test_an_unknown_workload_is_an_error() -> None:
    """Nobody else's snapshot is handed out instead."""
    with pytest.raises(KeyError):
        generate(RICH, "default/nobody", TRUST)


@given(st.permutations(TEXTS))
def test_the_order_of_files_does_not_matter(texts: list[str]) -> None:
    """Two control planes that list a folder differently tell a proxy the same."""
    mixed = state(*texts, placements=dict(reversed(PLACED.items())))
    for name in PLACED:
        assert generate(mixed, name, TRUST) == generate(RICH, name, TRUST)


def assert_consistent(snapshot: Snapshot) -> None:
    """What is referred to is there, and what is there is referred to."""
    hosts = {host.name for host in snapshot.virtual_hosts}
    streams = {one.name for one in snapshot.tcp_routes}
    clusters = {cluster.name for cluster in snapshot.clusters}
    assert {one.virtual_host for one in snapshot.listeners} - {None} <= hosts
    assert {one.tcp_route for one in snapshot.listeners} - {None} <= streams
    requested = {
        backend.cluster
        for host in snapshot.virtual_hosts
        for one in host.routes
        for backend in one.backends
    }
    connected = {
        backend.cluster
        for one in snapshot.tcp_routes
        for rule in one.rules
        for backend in rule.backends
    }
    mirrored = {
        mirror.cluster
        for host in snapshot.virtual_hosts
        for one in host.routes
        for mirror in one.mirrors
    }
    assert clusters == (requested | connected | mirrored) - {None}
    assert clusters == {one.cluster for one in snapshot.endpoints}
    domains = [domain for host in snapshot.virtual_hosts for domain in host.domains]
    assert len([d for d in domains if d != "*"]) == len({d for d in domains if d != "*"})


@pytest.mark.parametrize("name", PLACED)
def test_a_snapshot_is_consistent(name: str) -> None:
    """Also over the wire, and its version is that of its content."""
    snapshot = generate(RICH, name, TRUST)
    assert_consistent(snapshot)
    assert wire.decode(wire.encode(snapshot), Snapshot) == snapshot
    assert snapshot.version == wire.version_of(snapshot)


def test_a_proxy_gets_only_what_concerns_it() -> None:
    """Neither the consumer routes of another namespace nor another workload's inbound side."""
    text = wire.encode(generate(RICH, "default/storefront", TRUST)).decode()
    assert "HTTPRoute/other" not in text
    before = generate(RICH, "default/storefront", TRUST).version
    without = state(*TEXTS[:-1], placements=PLACED)
    assert generate(without, "default/storefront", TRUST).version == before


@pytest.mark.parametrize("home", ["default", "other"])
def test_a_route_leads_to_another_namespace_without_a_grant(home: str) -> None:
    """Producer's (in the Service's namespace) and consumer's: GEP-1294, "Namespace boundaries"."""
    mesh = state(
        service("a"),
        service("b", "far"),
        workload("b", "far"),
        workload("client", home),
        route("r", "a", "[{backendRefs: [{name: b, namespace: far, port: 80}]}]", namespace=home),
        placements={"far/b": Placement(outbound_port=1, inbound_ports={8080: 2})},
    )
    assert mesh.findings == ()
    snapshot = generate(mesh, f"{home}/client", TRUST)
    [called] = [host for host in snapshot.virtual_hosts if host.name == "default/a:80"]
    assert [backend.cluster for backend in called.routes[0].backends] == ["far/b:80"]
    [servers] = [one for one in snapshot.endpoints if one.cluster == "far/b:80"]
    assert [one.port for one in servers.endpoints] == [2]


def test_an_empty_mesh_still_has_its_own_ports() -> None:
    """A workload alone: no service, no placement."""
    alone: State = state(workload("a"))
    snapshot = generate(alone, "default/a", TRUST)
    assert snapshot.listeners == ()
    assert [host.name for host in snapshot.virtual_hosts] == ["inbound:8080"]
    assert [one.name for one in snapshot.tcp_routes] == ["inbound:8080"]
    assert_consistent(snapshot)

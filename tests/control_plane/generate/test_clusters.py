import pytest

from control_plane.generate.clusters import inbound
from control_plane.generate.snapshot import generate
from meshproxy.contract.policies import LimitsSpec, SheddingSpec
from meshproxy.contract.resources import ClusterSpec
from tests.helpers.mesh import TRUST, policy, route, service, state, tcp_route, workload

MESH = "apiVersion: meshproxy.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: m}\n"


def clusters(*texts: str) -> dict[str, ClusterSpec]:
    snapshot = generate(state(workload("w"), *texts), "default/w", TRUST)
    return {cluster.name: cluster for cluster in snapshot.clusters}


def test_named_after_the_service_port_and_encrypted() -> None:
    """The name is that of the virtual host; the service is what metrics call it."""
    assert clusters(service("a"))["default/a:80"] == ClusterSpec(
        name="default/a:80", service="default/a", mtls=True
    )


def test_disabled_mtls_is_plaintext_on_both_sides() -> None:
    """PERMISSIVE still encrypts: it is about what is accepted, not about what is offered."""
    assert not clusters(service("a"), MESH + "spec: {mtls: DISABLED}")["default/a:80"].mtls
    assert clusters(service("a"), MESH + "spec: {mtls: PERMISSIVE}")["default/a:80"].mtls


def test_only_what_routes_lead_to() -> None:
    """A service whose route sends everything elsewhere needs no cluster."""
    redirected = route("r", "a", "[{backendRefs: [{name: b, port: 80}]}]")
    assert list(clusters(service("a"), service("b"), redirected)) == [
        "default/b:80",
        "inbound:8080",
    ]


def test_the_own_app_is_reached_in_plaintext() -> None:
    """Over the loopback, under the workload's name; its one endpoint is neither ejected nor limited."""
    mesh = state(workload("w"))
    assert inbound(mesh.workloads["default/w"], mesh.services, (), {}) == (
        ClusterSpec(
            name="inbound:8080",
            service="default/w",
            limits=LimitsSpec(),
            endpoint_limits=LimitsSpec(),
            outliers=None,
        ),
    )


def test_a_policy_of_the_backend_holds_not_that_of_the_parent() -> None:
    """Policies say how a Service is called, whichever route leads there."""
    made = clusters(
        service("a"),
        service("b"),
        route("r", "a", "[{backendRefs: [{name: a, port: 80}, {name: b, port: 80}]}]"),
        policy("p", "timeouts: {request: 1s}", target="a"),
        policy("q", "timeouts: {request: 2s}", target="b"),
    )
    assert made["default/a:80"].request_timeout == 1_000
    assert made["default/b:80"].request_timeout == 2_000


def test_the_way_to_the_app_sheds_load_and_does_not_end_what_callers_keep() -> None:
    """All else is the callers' business; of two Services in front the older policy decides."""
    older = ", creationTimestamp: '2020-01-01T00:00:00Z'"
    made = clusters(
        service("w"),
        service("v").replace("app: v", "app: w"),
        policy("p", "loadShedding: {maxLimit: 7, minLimit: 1, initialLimit: 2}", target="w"),
        policy(
            "q",
            "loadShedding: {}, timeouts: {request: 1s, streamIdle: 0s, idleConnection: 3s}",
            target="v",
            metadata=older,
        ),
    )["inbound:8080"]
    assert made.shedding == SheddingSpec()
    assert (made.stream_idle_timeout, made.idle_timeout) == (0, 3_000)
    assert made.request_timeout == 0


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        ("kubernetes.io/h2c", "http2"),
        ("grpc", "http2"),
        ("http2", "http2"),
        ("http", "http1"),
        ("kubernetes.io/ws", "http1"),
    ],
)
def test_app_protocol_says_what_a_plain_app_speaks(said: str, protocol: str) -> None:
    """In front of the app itself, and towards others without mutual TLS; with it, TLS settles it."""
    spoken = service("w").replace("targetPort: http", f"targetPort: http, appProtocol: {said}")
    made = clusters(spoken)
    assert made["inbound:8080"].protocol == protocol
    assert made["default/w:80"].protocol == "http1"
    plain = clusters(spoken, MESH + "spec: {mtls: DISABLED}")
    assert plain["default/w:80"].protocol == protocol


GRPC = route("r", "w", "[{backendRefs: [{name: w, port: 80}]}]", kind="GRPCRoute")


@pytest.mark.parametrize(
    ("said", "protocol"), [("", "http2"), ("grpc", "http2"), ("http", "http1")]
)
def test_a_backend_of_a_grpc_route_speaks_http2(said: str, protocol: str) -> None:
    """gRPC is nothing else; but who says what it speaks is believed."""
    spoken = service("w", app_protocol=said)
    assert clusters(spoken, GRPC)["inbound:8080"].protocol == protocol
    plain = clusters(spoken, GRPC, MESH + "spec: {mtls: DISABLED}")
    assert plain["default/w:80"].protocol == protocol


@pytest.mark.parametrize(("said", "checked"), [("grpc", True), ("", False)])
def test_who_speaks_no_http2_is_not_asked_in_grpc(said: str, checked: bool) -> None:
    """All of its endpoints would seem to be ill; that it is not asked is a finding."""
    check = policy("p", "healthCheck: {grpc: {}}", target="w")
    made = clusters(service("w", app_protocol=said), check)["default/w:80"]
    assert (made.health_check is not None) == checked


def test_connections_need_clusters_too() -> None:
    """Those of a TCPRoute, and of a port that may be anything."""
    split = tcp_route("r", "a", "b", "c", "missing")
    assert list(clusters(service("a"), service("b"), service("c"), split)) == [
        "default/b:80",
        "default/c:80",
        "inbound:8080",
    ]
    assert "default/a:80" in clusters(service("a", app_protocol="tcp"))


def test_services_that_lead_elsewhere_say_nothing_about_the_app() -> None:
    """Another selector, another namespace, another port of the workload."""
    grpc = "targetPort: http, appProtocol: grpc"
    others = (
        service("other").replace("targetPort: http", grpc),
        service("w", namespace="far").replace("targetPort: http", grpc),
        service("w").replace("targetPort: http", "targetPort: 9090, appProtocol: grpc"),
    )
    assert clusters(*others)["inbound:8080"].protocol == "http1"

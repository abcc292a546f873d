from control_plane.generate.backends import cluster_name, http_backend, tcp_backend
from control_plane.resources.gateway_api import BackendRef, HTTPBackendRef, HTTPRoute, TCPRoute
from meshproxy.contract.resources import BackendSpec, TcpBackendSpec
from tests.helpers.mesh import route, service, state, tcp_route

MESH = state(service("a"), route("r", "a", "[{}]", namespace="other"), tcp_route("t", "a", "a"))


def test_a_backend_is_the_cluster_of_its_service_port() -> None:
    """In the route's own namespace, where none is named."""
    http, tcp = MESH.routes["HTTPRoute/other/r"], MESH.routes["TCPRoute/default/t"]
    assert isinstance(http, HTTPRoute)
    assert isinstance(tcp, TCPRoute)
    name = cluster_name("default/a", 80)
    ref = HTTPBackendRef(name="a", namespace="default", port=80, weight=3)
    assert http_backend(ref, http, MESH.services) == BackendSpec(cluster=name, weight=3)
    assert tcp_backend(BackendRef(name="a", port=80, weight=0), tcp, MESH.services) == (
        TcpBackendSpec(cluster=name, weight=0)
    )


def test_a_backend_that_is_not_there_keeps_its_weight() -> None:
    """Its share is refused, and not given to the others."""
    http, tcp = MESH.routes["HTTPRoute/other/r"], MESH.routes["TCPRoute/default/t"]
    assert isinstance(http, HTTPRoute)
    assert isinstance(tcp, TCPRoute)
    here = HTTPBackendRef(name="a", port=80, weight=3)
    assert http_backend(here, http, MESH.services) == BackendSpec(cluster=None, weight=3)
    missing = BackendRef(name="a", port=81, weight=2)
    assert tcp_backend(missing, tcp, MESH.services) == TcpBackendSpec(cluster=None, weight=2)

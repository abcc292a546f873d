from control_plane.generate.called import called
from tests.helpers.mesh import route, service, state, tcp_route


def test_every_port_of_every_service_as_the_namespace_sees_it() -> None:
    """In order of name and port, with the routes that hold for this namespace."""
    two = service("b").replace(
        "[{port: 80, targetPort: http}]", "[{port: 81, name: x}, {port: 80, name: y}]"
    )
    mesh = state(
        two,
        service("a", app_protocol="http"),
        route("r", "b", "[{}]").replace("name: b", "name: b, port: 81"),
        tcp_route("t", "b", "b", namespace="other"),
    )
    here = called(mesh.services, mesh.routes.values(), "default")
    assert [(one.name, one.decision.protocol, one.is_http, one.is_tcp) for one in here] == [
        ("default/a:80", "http", True, False),
        ("default/b:80", "detect", True, True),
        ("default/b:81", "http", True, False),
    ]
    there = called(mesh.services, mesh.routes.values(), "other")
    assert [one.decision.kind for one in there] == [None, "TCPRoute", "TCPRoute"]

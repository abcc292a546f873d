import pytest

from control_plane.resources.app_protocol import agreed, is_prior_knowledge, protocol_of
from control_plane.resources.model import ServicePort


def port(said: str | None, name: str | None = None) -> ServicePort:
    return ServicePort(port=80, name=name, app_protocol=said)


@pytest.mark.parametrize(
    ("said", "protocol", "prior_knowledge"),
    [
        ("http", "http", False),
        ("HTTP", "http", False),
        ("http2", "http", True),
        ("grpc", "http", True),
        ("grpc-web", "http", False),
        ("kubernetes.io/h2c", "http", True),
        ("kubernetes.io/ws", "http", False),
        ("kubernetes.io/wss", "tcp", False),
        ("https", "tcp", False),
        ("tls", "tcp", False),
        ("tcp", "tcp", False),
        ("mysql", "tcp", False),
        ("example.com/our-own", "detect", False),
        (None, "detect", False),
    ],
)
def test_what_people_write(said: str | None, protocol: str, prior_knowledge: bool) -> None:
    """Kubernetes' values, IANA's names; what nobody knows changes nothing."""
    assert protocol_of(port(said)) == protocol
    assert is_prior_knowledge(port(said)) is prior_knowledge


@pytest.mark.parametrize("name", ["http", "grpc", "tcp-db", "mysql"])
def test_names_of_ports_never_count(name: str) -> None:
    """A rename must not change what a port speaks."""
    assert protocol_of(port(None, name)) == "detect"


@pytest.mark.parametrize(
    ("said", "protocol"),
    [
        ([], "detect"),
        ([None], "detect"),
        (["http", "grpc", None], "http"),
        (["tcp", None], "tcp"),
        (["tcp", "http"], "detect"),
    ],
)
def test_several_agree_or_the_bytes_decide(said: list[str | None], protocol: str) -> None:
    """Who says nothing contradicts nobody."""
    assert agreed(map(port, said)) == protocol

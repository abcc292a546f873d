"""What an app is told about its mesh."""

import sys

import pytest

from control_plane.cli.local.environment import NOT_PROXIED, app_environment, expand
from control_plane.placement import Placement
from tests.control_plane.cli.local.meshes import service, workload

PLACEMENT = Placement(
    app_ports={8080: 20001, 9090: 20002},
    outbound_port=20003,
    service_ports={"default/my-catalog:80": 20004, "default/my-catalog:8080": 20005},
)


def test_the_sidecar_is_the_proxy_of_the_app() -> None:
    """Both spellings are set, whatever the user's own proxy was; loopback stays direct."""
    environment = app_environment(
        workload("shop"), PLACEMENT, [], {"HTTP_PROXY": "http://corp:3128", "no_proxy": "catalog"}
    )

    for name in ("HTTP_PROXY", "http_proxy"):
        assert environment[name] == "http://127.0.0.1:20003"
    for name in ("NO_PROXY", "no_proxy"):
        assert environment[name] == NOT_PROXIED


def test_ports_are_handed_over() -> None:
    """PORT is the first port's, PORT_<NAME> each one's."""
    environment = app_environment(workload("shop", 8080, 9090), PLACEMENT, [], {})

    assert environment["PORT"] == environment["PORT_PORT_8080"] == "20001"
    assert environment["PORT_PORT_9090"] == "20002"


def test_services_are_named_as_in_kubernetes() -> None:
    """HOST and PORT of the first port, PORT_<NAME> of each; services of other namespaces are not."""
    services = [service("my-catalog", 80, 8080), service("far", 80, namespace="other")]

    environment = app_environment(workload("shop"), PLACEMENT, services, {})

    assert environment["MY_CATALOG_SERVICE_HOST"] == "127.0.0.1"
    assert environment["MY_CATALOG_SERVICE_PORT"] == "20004"
    assert environment["MY_CATALOG_SERVICE_PORT_PORT_8080"] == "20005"
    assert not any(name.startswith("FAR_") for name in environment)


def test_who_it_is() -> None:
    """An app can say in its logs which workload it is, and can start another Python."""
    environment = app_environment(workload("shop", namespace="blue"), PLACEMENT, [], {"HOME": "/h"})

    assert environment["MESH_WORKLOAD"] == "shop"
    assert environment["MESH_NAMESPACE"] == "blue"
    assert environment["MESH_PYTHON"] == sys.executable
    assert environment["HOME"] == "/h"


def test_the_workloads_own_words_win() -> None:
    """`env` may override everything, and refer to what was said before it."""
    shop = workload(
        "shop", 8080, command=["x"], env={"URL": "http://localhost:$(PORT)/", "NO_PROXY": "$(URL)"}
    )

    environment = app_environment(shop, PLACEMENT, [], {})

    assert environment["NO_PROXY"] == environment["URL"] == "http://localhost:20001/"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$(A)-$(B)", "1-2"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$A $ $(", "$A $ $("),
        ("$$$(A)", "$1"),
    ],
)
def test_references_expand_as_in_a_pod(text: str, expected: str) -> None:
    """Known names are replaced, unknown ones stay, a doubled dollar escapes."""
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_a_captured_app_needs_no_proxy() -> None:
    """It has its own ports, and calls services by their own addresses; nobody's proxy is in the way."""
    placement = Placement(
        address="10.77.0.3", captured=True, app_ports={8080: 8080}, outbound_port=15001
    )
    environment = app_environment(
        workload("shop", 8080),
        placement,
        [service("my-catalog", 80), service("lost", 80)],
        {"HTTP_PROXY": "http://corp:3128", "HOME": "/h"},
        {"default/my-catalog": ("10.77.128.1", "fd00:1::1")},
    )

    assert not {"HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} & environment.keys()
    assert environment["PORT"] == "8080"
    assert environment["MY_CATALOG_SERVICE_HOST"] == "10.77.128.1"
    assert environment["MY_CATALOG_SERVICE_PORT"] == "80"
    assert "LOST_SERVICE_HOST" not in environment

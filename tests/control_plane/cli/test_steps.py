"""The way of a request, by the proxies' own tables."""

from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.errors import CommandError
from control_plane.cli.mesh import Mesh, of_files
from control_plane.cli.steps import Steps, Target, follow, key_of
from meshproxy.message import RequestHead
from tests.control_plane.cli.policed import folder


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return of_files([folder(tmp_path)])


def way(mesh: Mesh, url: str, method: str = "GET", claims: Any = None) -> Steps:
    target, head = Target.parse(url), None
    if target.scheme == "http":
        head = RequestHead(method.encode(), target.authority.encode(), target.path.encode(), [])
    return follow(mesh, "default/storefront", target, head, claims)


def test_the_route_that_matches_and_those_that_do_not(mesh: Mesh) -> None:
    """Each that comes before says which condition fails; what a rewrite changes, the server judges."""
    found = way(mesh, "http://catalog/new/items/1")
    assert (found.authority, found.virtual_host) == ("catalog:80", "default/catalog:80")
    assert found.route is not None
    assert found.route.name == "HTTPRoute/default/catalog/0"
    assert found.seen == "GET catalog/items/1"
    assert [(one.cluster, one.share) for one in found.backends] == [
        ("default/catalog-v2:80", "100%")
    ]
    assert found.answered
    assert found.part.virtual_hosts[0].routes[0].request_timeout == 2000
    found = way(mesh, "http://catalog/new/items/1", "PUT")
    assert found.route is None
    assert found.result.startswith("404 no-route")
    why = {one.match: one.why for one in found.passed_over}
    assert why["GET, PathPrefix /new"] == "GET does not hold"
    assert why["PathPrefix /items"] == "PathPrefix /items does not hold"
    assert not found.answered


def test_shares_endpoints_and_what_each_server_says(mesh: Mesh) -> None:
    """By weight; each server is judged once, by its own policies."""
    found = way(mesh, "http://catalog/items/1")
    assert [(one.cluster, one.share) for one in found.backends] == [
        ("default/catalog:80", "75%"),
        ("default/catalog-v2:80", "25%"),
    ]
    assert [len(one.servers) for one in found.backends] == [2, 1]
    assert [one.workload for one in found.decisions] == [
        "default/catalog-v1",
        "default/catalog-v2",
    ]
    assert found.answered
    assert not way(mesh, "http://catalog/secret").answered


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("http://catalog/moved?a=b", "redirect 301 to http://else.example/moved?a=b"),
        ("http://catalog/elsewhere", "404 no-route: no route of this service matches"),
        ("http://catlog/", "404 no-route: nobody is called so; there are default/catalog-v2:80"),
        ("tcp://catlog:9", "404 no-route: nobody is called so; there are data/db:5432"),
        ("http://db.data:5432/", "opaque TCP, no HTTP: ask for tcp://db.data:5432"),
        ("tcp://catalog:80", "HTTP, no opaque TCP: ask for http://catalog:80/"),
    ],
)
def test_what_the_callers_own_sidecar_answers(url: str, result: str, mesh: Mesh) -> None:
    """No server sees these."""
    found = way(mesh, url)
    assert found.result.startswith(result)
    assert not found.backends
    assert found.answered == result.startswith("redirect")


def test_nobody_to_answer(mesh: Mesh) -> None:
    """A cluster without endpoints."""
    found = way(mesh, "http://catalog/lost")
    assert [one.servers for one in found.backends] == [()]
    assert not found.answered


def test_connections(mesh: Mesh) -> None:
    """By name and port, judged as connections."""
    found = way(mesh, "tcp://db.data:5432")
    assert found.tcp_route == "data/db:5432"
    assert found.route is not None
    assert key_of(found.route.name) == "Service/data/db"
    (decision,) = found.decisions
    assert (decision.allowed, decision.rule) == (True, "0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("catalog/items", "is neither a URL nor an id"),
        ("https://catalog/", "TLS is opaque"),
        ("http://[::1/", "is no URL"),
        ("http://user@catalog:x/", "is no host with port"),
        ("ftp://catalog/", "is neither a URL nor an id"),
    ],
)
def test_what_is_no_target(text: str, said: str) -> None:
    """Says what was expected."""
    with pytest.raises(CommandError, match=said):
        Target.parse(text)

"""What one proxy has been told."""

import json
from pathlib import Path

import msgspec
import pytest

from control_plane.cli.config import action
from control_plane.cli.main import main
from control_plane.placement import Placement, Placements
from meshproxy.contract import wire
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    DestinationSpec,
    EndpointSpec,
    EndpointsSpec,
    HeaderModifierSpec,
    HeaderSpec,
    ListenerSpec,
    RedirectSpec,
    RouteSpec,
    Snapshot,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    VirtualHostSpec,
)
from tests.control_plane.cli.conftest import Api

SNAPSHOT = Snapshot(
    version="abc",
    listeners=(ListenerSpec(name="out", direction="outbound", address="127.0.0.1", port=15001),),
    virtual_hosts=(
        VirtualHostSpec(
            name="catalog:80",
            routes=(RouteSpec(name="split", backends=(BackendSpec(cluster="c1"),)),),
        ),
    ),
    tcp_routes=(
        TcpRouteSpec(
            name="db:5432",
            rules=(
                TcpRuleSpec(
                    name="tls",
                    server_names=("db.example",),
                    backends=(
                        TcpBackendSpec(cluster="c1", weight=3),
                        TcpBackendSpec(cluster=None),
                    ),
                ),
            ),
        ),
    ),
    clusters=(ClusterSpec(name="c1", service="default/catalog", mtls=True),),
    endpoints=(
        EndpointsSpec(
            cluster="c1",
            endpoints=(EndpointSpec(address="127.0.0.1", port=9, identities=("spiffe://a",)),),
        ),
    ),
)
WIRE = json.loads(wire.encode(SNAPSHOT))


def run(api: Api, *words: str) -> int:
    return main(["config", *words, "--context", str(api.context)])


@pytest.mark.parametrize(
    ("section", "row"),
    [
        ("listeners", "out outbound 127.0.0.1:15001 - detect -"),
        ("routes", "catalog:80 PathPrefix / c1 100% split"),
        ("clusters", "c1 default/catalog yes 1 5000ms 60000ms"),
        ("endpoints", "c1 127.0.0.1:9 1 - - spiffe://a"),
    ],
)
def test_each_section_is_a_table(
    api: Api, section: str, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each thing."""
    api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, WIRE)

    assert run(api, "shop", section) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == row.split()


def test_connections_that_are_not_http_have_a_table_of_their_own(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the requests; as JSON both stand side by side."""
    api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, WIRE)

    assert run(api, "shop", "routes") == 0
    _, _, _, header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("CONNECTIONS TO")
    assert row.split() == [
        "db:5432",
        "db.example",
        "c1",
        "75%,",
        "refused",
        "(unresolved)",
        "25%",
        "tls",
    ]
    assert run(api, "shop", "routes", "-o", "json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"virtual_hosts", "tcp_routes"}


def test_policies_are_shown_with_their_defaults(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table in words, as JSON with every value that is in force."""
    api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, WIRE)

    assert run(api, "shop", "policies") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("(default)")
    assert run(api, "shop", "policies", "-o", "json") == 0
    (cluster,) = json.loads(capsys.readouterr().out)["clusters"]
    assert (cluster["name"], cluster["connect_timeout"]) == ("c1", 5000)


def test_destinations_are_shown_where_there_are_any(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a proxy that connections are redirected to has them."""
    destination = DestinationSpec(
        name="a", direction="outbound", addresses=("10.0.0.1",), port=80, virtual_host="catalog:80"
    )
    api.answers["/api/v1/proxies"] = (200, [])
    for destinations in ((), (destination,)):
        snapshot = msgspec.structs.replace(SNAPSHOT, destinations=destinations)
        page = json.loads(wire.encode(snapshot))
        api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, page)
        assert run(api, "shop") == 0
        assert ("\nDESTINATION " in capsys.readouterr().out) == bool(destinations)
    assert run(api, "shop", "destinations") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["a", "outbound", "10.0.0.1", "80", "detect", "catalog:80"]


def test_without_a_section_all_are_shown(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """After the version that they are of; as JSON it is the contract's snapshot."""
    api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, WIRE)
    api.answers["/api/v1/proxies"] = (200, [])

    assert run(api, "shop") == 0
    text = capsys.readouterr().out
    assert text.startswith("version abc\n\nLISTENER")
    assert all(f"\n{header} " in text for header in ("VIRTUAL HOST", "CLUSTER", "TRUSTED ROOT"))
    assert run(api, "shop", "-o", "json") == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Snapshot) == SNAPSHOT


def test_a_misspelt_proxy_is_answered_with_the_nearest(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of those that the control plane knows."""
    api.answers["/api/v1/proxies"] = (200, [{"workload": "default/shop"}])

    assert run(api, "shpo") == 1
    assert "did you mean default/shop?" in capsys.readouterr().err


def test_without_a_control_plane_the_proxy_is_asked(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on with what it has, and says so."""
    host, port = api.address.split(":")
    placements = Placements(
        workloads={"default/shop": Placement(address=host, admin_port=int(port))}
    )
    (tmp_path / "placements.json").write_bytes(msgspec.json.encode(placements))
    context = json.loads(api.context.read_text())
    api.context.write_text(json.dumps({**context, "api": "http://127.0.0.1:1"}))
    (tmp_path / "token").write_text("ignored by a sidecar")
    api.answers["/config"] = (200, WIRE)
    api.open.add("/config")

    assert run(api, "shop", "clusters") == 0
    assert "default/catalog" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (RouteSpec(name="r"), "500 (nothing to forward to)"),
        (
            RouteSpec(name="r", redirect=RedirectSpec(scheme="https", hostname="a.b")),
            "redirect 302 https://a.b",
        ),
        (
            RouteSpec(
                name="r",
                backends=(
                    BackendSpec(cluster="a", weight=3),
                    BackendSpec(cluster=None, weight=1),
                ),
                request_headers=HeaderModifierSpec(add=(HeaderSpec(name="x", value="1"),)),
            ),
            "a 75%, 500 (unresolved) 25% (request headers)",
        ),
    ],
)
def test_actions_fit_on_a_line(route: RouteSpec, expected: str) -> None:
    """Where it goes, in which shares, and what is changed on the way."""
    assert action(route) == expected

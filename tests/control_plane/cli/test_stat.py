"""Traffic per edge."""

import json
import time
from typing import Any

import pytest

from control_plane.cli.connections import Connections
from control_plane.cli.main import main
from control_plane.cli.stat import (
    HEADERS,
    TCP_HEADERS,
    records,
    render,
    render_all,
    render_tcp,
    tcp_records,
)
from control_plane.cli.traffic import Edge, Traffic
from tests.control_plane.cli.conftest import Api

EDGES = {
    Edge("default/shop", "default/catalog-v1", "v1", "spiffe://shop"): Traffic(
        {"200": 30.0, "500": 10.0}, {}, {0.01: 20.0, 0.02: 40.0, float("inf"): 40.0}
    )
}


def test_a_record_has_rates_and_quantiles() -> None:
    """Per second, in percent, in milliseconds; one value for each header."""
    (record,) = records(EDGES, 2.0)

    assert record == {
        "kind": "requests",
        "source": "default/shop",
        "destination": "default/catalog-v1",
        "version": "v1",
        "requests_per_second": 20.0,
        "success_percent": 75.0,
        "p50_ms": 10.0,
        "p99_ms": 19.8,
        "identity": "spiffe://shop",
        "refusals": {},
    }


IDENTITY = "spiffe://demo.mesh/ns/default/sa/storefront"


def test_the_table_fits_a_terminal() -> None:
    """80 columns are enough for every column, and for the end of the identity."""
    traffic = Traffic({"200": 9998.0, "500": 2.0}, {}, {0.1: 1.0, 0.2: 10000.0})
    edges = {Edge("default/storefront", "default/catalog-v1", "v1", IDENTITY): traffic}
    rows = records(edges, 74.0)

    header, row = render(rows, 80).splitlines()

    assert len(row) == 80
    assert row.startswith("storefront  catalog-v1   v1 ")
    assert " 99.98% " in row
    assert row.endswith("sa/storefront")
    assert header.split() == " ".join(HEADERS).split()
    assert render(rows, 200).endswith(IDENTITY)
    assert render(rows).splitlines()[1].startswith("default/storefront ")


def test_what_never_arrived_says_why() -> None:
    """In place of an identity."""
    edge = Edge("default/storefront", "default/catalog", "", "", arrived=False)
    rows = records({edge: Traffic({"500": 28.0}, {"unresolved-backend": 28.0})}, 1.0)

    assert render(rows, 80).splitlines()[1].split() == [
        "storefront", "catalog", "-", "28.0", "0%", "-", "-", "unresolved-backend",
    ]  # fmt: skip


CONNECTIONS = {
    Edge("default/shop", "default/db", "", IDENTITY): Connections(
        3.0, {"-": 9.0, "UR": 1.0}, 2000.0, 50000.0
    )
}


def test_connections_have_records_of_their_own() -> None:
    """Open ones as they are now, everything else per second; what broke says how."""
    (record,) = tcp_records(CONNECTIONS, 2.0)

    assert record == {
        "kind": "connections",
        "source": "default/shop",
        "destination": "default/db",
        "open": 3,
        "ended_per_second": 5.0,
        "success_percent": 90.0,
        "received_bytes_per_second": 1000,
        "sent_bytes_per_second": 25000,
        "identity": IDENTITY,
        "failures": {"UR": 1.0},
    }


def test_connections_have_a_table_of_their_own() -> None:
    """Beside that of requests, or alone; and none where there are no connections."""
    rows, streams = records(EDGES, 2.0), tcp_records(CONNECTIONS, 2.0)

    header, row = render_tcp(streams, 80).splitlines()
    assert header.split() == " ".join(TCP_HEADERS).split()
    assert row.split()[:7] == ["shop", "db", "3", "5.0", "90%", "1000", "25000"]
    assert len(row) <= 80
    assert render_all(rows, []) == render(rows)
    assert render_all([], streams) == render_tcp(streams)
    assert render_all(rows, streams) == f"{render(rows)}\n\n{render_tcp(streams)}"
    assert render_all([], []) == "no traffic in this window"


def test_connections_that_never_arrived_say_why() -> None:
    """In place of an identity."""
    edge = Edge("default/shop", "default/db", "", "", arrived=False)
    streams = tcp_records({edge: Connections(flags={"UC": 2.0})}, 1.0)

    assert render_tcp(streams).splitlines()[1].split()[-1] == "upstream-closed"


def test_no_traffic_is_said() -> None:
    """An empty table would look like a failure to look."""
    assert render([]) == "no traffic in this window"


def test_the_verb_looks_twice(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flowed between the looks is shown, not what was counted before."""
    labels = 'direction="inbound",source="plaintext",destination="default/a",code="200"'
    api.answers["/api/v1/proxies"] = (200, [{"admin": api.address}, {"admin": None}])

    def count(requests: int) -> None:
        page = f"# TYPE mesh_requests counter\nmesh_requests_total{{{labels}}} {requests}\n"
        api.answers["/metrics"] = (200, page)

    count(1000)
    monkeypatch.setattr(time, "sleep", lambda _seconds: count(1007))

    assert main(["stat", "-o", "json", "--context", str(api.context)]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    expected: dict[str, Any] = {"source": "plaintext", "destination": "default/a", "identity": ""}
    assert expected.items() <= record.items()
    assert record["success_percent"] == 100.0

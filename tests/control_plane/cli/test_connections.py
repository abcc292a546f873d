"""From counters of sidecars to opaque connections on edges."""

import pytest

from control_plane.cli.connections import Connections, edges, reason
from control_plane.cli.traffic import Edge, Tally, parse

SHOP = "spiffe://td/ns/default/sa/shop"
BEFORE = """\
# TYPE mesh_tcp_connections counter
mesh_tcp_connections_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432",flag="-"} 4
# TYPE mesh_tcp_connections_active gauge
mesh_tcp_connections_active{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432"} 9
"""
AFTER = """\
# TYPE mesh_tcp_connections counter
mesh_tcp_connections_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432",flag="-"} 6
mesh_tcp_connections_total{direction="inbound",source="plaintext",destination="default/db",route="inbound:5432",flag="DC"} 1
mesh_tcp_connections_total{direction="outbound",source="default/shop",destination="default/db",route="TCPRoute/default/db/0",flag="-"} 2
mesh_tcp_connections_total{direction="outbound",source="default/shop",destination="default/db",route="TCPRoute/default/db/0",flag="UR"} 3
mesh_tcp_connections_total{direction="outbound",source="default/shop",destination="-",route="TCPRoute/default/gone/0",flag="NC"} 7
mesh_tcp_connections_total{direction="outbound",source="default/shop",destination="passthrough",route="-",flag="-"} 1
# TYPE mesh_tcp_connections_active gauge
mesh_tcp_connections_active{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432"} 2
mesh_tcp_connections_active{direction="outbound",source="default/shop",destination="default/db",route="TCPRoute/default/db/0"} 2
# TYPE mesh_tcp_sent_bytes counter
mesh_tcp_sent_bytes_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432"} 500
mesh_tcp_sent_bytes_total{direction="outbound",source="default/shop",destination="default/db",route="TCPRoute/default/db/0"} 500
# TYPE mesh_tcp_received_bytes counter
mesh_tcp_received_bytes_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/db",route="inbound:5432"} 30
"""


def test_connections_are_counted_once() -> None:
    """Where they arrive; from the caller's sidecar only what never arrived, or left the mesh."""
    tally = Tally()
    tally.look({"sidecar": parse(BEFORE)})
    risen = tally.look({"sidecar": parse(AFTER)})

    assert edges(risen, tally.standing) == {
        Edge("default/shop", "default/db", "", SHOP): Connections(2, {"-": 2}, 30, 500),
        Edge("default/shop", "default/gone", "", "", arrived=False): Connections(flags={"NC": 7}),
        Edge("default/shop", "passthrough", "", ""): Connections(flags={"-": 1}),
        Edge("plaintext", "default/db", "", ""): Connections(flags={"DC": 1}),
    }


def test_requests_are_no_connections() -> None:
    """What belongs to another table stays there; what did not move is left out."""
    requests = ("mesh_requests_total", frozenset({("direction", "inbound")}))
    still = ("mesh_tcp_sent_bytes_total", frozenset({("direction", "inbound")}))

    assert edges({requests: 5.0, still: 0.0}, {}) == {}


def test_a_client_that_leaves_is_no_failure_of_the_service() -> None:
    """It is said all the same; without an end there is no share."""
    connections = Connections(flags={"-": 2, "DC": 1, "UR": 1})

    assert connections.ended == 4
    assert connections.success == pytest.approx(0.75)
    assert connections.failures == {"downstream-closed": 1, "UR": 1}
    assert Connections(open=1).success is None


def test_a_flag_has_its_refusal_where_that_is_certain() -> None:
    """Else the flag itself, which several share."""
    assert reason("UC") == "upstream-closed"
    assert reason("UH") == "UH"
    assert reason("UF") == "UF"

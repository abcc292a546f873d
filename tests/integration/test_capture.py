"""
One sidecar in a captured namespace: what it passes on, what it refuses, and that it never loops.

The namespace *pod* has the sidecar and its app, *peer* is the rest of the world.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshproxy.contract import wire
from meshproxy.contract.resources import (
    ClusterSpec,
    DestinationSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    Snapshot,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
)
from tests.helpers.namespaces import Namespace, join, needs_namespaces
from tests.helpers.pair import spiffe

pytestmark = [pytest.mark.integration, needs_namespaces]

SIDECAR, APP = 1337, 1000
POD, PEER, POD6, PEER6 = "10.99.0.1", "10.99.0.2", "fd99::1", "fd99::2"
SERVICE, SERVICE6 = "10.96.0.7", "fd96::7"

CALL = """
import socket, sys
host, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
try:
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(text)
        print(connection.makefile(newline="").read())
except OSError as error:
    print(type(error).__name__)
"""
REQUEST = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"


def listeners(unknown: str = "pass") -> tuple[ListenerSpec, ...]:
    specs = [
        {"name": "out4", "direction": "outbound", "address": "127.0.0.1", "port": 15001},
        {"name": "out6", "direction": "outbound", "address": "::1", "port": 15001},
        {"name": "in4", "direction": "inbound", "address": "0.0.0.0", "port": 15006},
        {"name": "in6", "direction": "inbound", "address": "::", "port": 15006},
    ]
    more = {"captured": True, "unknown": unknown}
    return tuple(wire.convert(spec | more, ListenerSpec) for spec in specs)


def leads_to(name: str, address: str, port: int) -> Snapshot:
    """Return a route, a cluster and an endpoint of one name."""
    return Snapshot(
        tcp_routes=(
            TcpRouteSpec(
                name=name,
                rules=(TcpRuleSpec(name=name, backends=(TcpBackendSpec(cluster=name),)),),
            ),
        ),
        clusters=(ClusterSpec(name=name, service=f"default/{name}"),),
        endpoints=(
            EndpointsSpec(cluster=name, endpoints=(EndpointSpec(address=address, port=port),)),
        ),
    )


SHOP, OWN = leads_to("shop", PEER, 8080), leads_to("own", "127.0.0.1", 8080)
SNAPSHOT = Snapshot(
    listeners=listeners(),
    destinations=(
        DestinationSpec(
            name="shop", direction="outbound", addresses=(SERVICE, SERVICE6), port=80,
            protocol="tcp", tcp_route="shop",
        ),
        DestinationSpec(name="own", direction="inbound", port=8080, protocol="tcp", tcp_route="own"),
    ),
    tcp_routes=SHOP.tcp_routes + OWN.tcp_routes,
    clusters=SHOP.clusters + OWN.clusters,
    endpoints=SHOP.endpoints + OWN.endpoints,
)  # fmt: skip


class Captured:
    """A captured pod with a sidecar, and its peer."""

    def __init__(self, folder: Path) -> None:
        self.pod, self.peer = Namespace(), Namespace()
        self.folder = folder

    def open(self) -> None:
        join(self.pod, self.peer)
        self.serve(self.peer, "0.0.0.0:8080", ":::8080", "0.0.0.0:9000", ":::9000")
        self.serve(self.pod, "127.0.0.1:8080", "0.0.0.0:7000", ":::7000", "127.0.0.1:7001")
        self.intercept()

    def serve(self, where: Namespace, *places: str) -> None:
        server = where.start(sys.executable, "-m", "tests.helpers.answering", *places, uid=APP)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"

    def intercept(self, *options: str) -> None:
        done = self.pod.run(sys.executable, "-m", "meshproxy", "intercept", *options)
        assert done.returncode == 0, done.stderr

    def run(self, snapshot: Snapshot, uid: int = SIDECAR) -> None:
        """Start the sidecar."""
        state = self.folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        os.chown(state, uid, uid)
        bootstrap = {
            "workload": "default/pod",
            "identity": spiffe("pod"),
            "state": str(state),
            "admin": {"address": "127.0.0.1", "port": 15000},
            "static": {"snapshot": "snapshot.json"},
        }
        (self.folder / "snapshot.json").write_bytes(wire.encode(snapshot))
        (self.folder / "bootstrap.json").write_text(json.dumps(bootstrap))
        self.sidecar = self.pod.start(
            sys.executable, "-m", "meshproxy", "run", "--bootstrap",
            str(self.folder / "bootstrap.json"), uid=uid,
        )  # fmt: skip
        for _ in range(200):
            if " 200 " in self.ask("/healthz/ready"):
                return
            assert self.sidecar.poll() is None, "the sidecar has ended"
        raise AssertionError("the sidecar is not ready")

    def call(self, host: str, port: int, text: str = "") -> str:
        return self.pod.python(CALL, host, str(port), text, uid=APP)

    def called(self, host: str, port: int, text: str = "") -> str:
        return self.peer.python(CALL, host, str(port), text)

    def ask(self, path: str) -> str:
        """Ask the sidecar's administration."""
        text = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        return self.call("127.0.0.1", 15000, text)

    def close(self) -> None:
        self.pod.close()
        self.peer.close()


@pytest.fixture
def captured(tmp_path: Path) -> Iterator[Captured]:
    made = Captured(tmp_path)
    try:
        made.open()
        yield made
    finally:
        made.close()


def test_by_address(captured: Captured) -> None:
    """Services by their virtual addresses, the app by its port; what is unknown as it is."""
    captured.run(SNAPSHOT)
    assert captured.call(SERVICE, 80) == captured.call(SERVICE6, 80) == "8080"
    assert captured.called(POD, 8080) == captured.called(POD6, 8080) == "8080"
    # Unknown: another port of the service's peer, and a port of the app that nobody declared.
    assert captured.call(PEER, 9000) == captured.call(PEER6, 9000) == "9000"
    assert captured.called(POD, 7000) == captured.called(POD6, 7000) == "7000"
    # Nobody is there: a reset, and at once.
    assert captured.call(PEER, 9001) == captured.called(POD, 7002) == "ConnectionResetError"
    # What the app offers to itself alone is not offered to anybody else.
    assert captured.call("127.0.0.1", 7001) == "7001"
    assert captured.called(POD, 7001) == "ConnectionResetError"
    metrics = captured.ask("/metrics")
    assert 'mesh_tcp_connections_total{destination="default/shop"' in metrics
    assert 'mesh_tcp_connections_total{destination="passthrough"' in metrics
    assert PEER not in metrics, "addresses in metrics would be without bound"


def test_registry_only(captured: Captured) -> None:
    """Who calls what is no service is told, if it speaks HTTP/1, and reset otherwise."""
    captured.run(msgspec.structs.replace(SNAPSHOT, listeners=listeners("refuse")))
    assert captured.call(SERVICE, 80) == "8080"
    answer = captured.call(PEER, 9000, REQUEST)
    assert answer.startswith("HTTP/1.1 502 ")
    assert "x-mesh-refusal: unknown-destination" in answer
    assert captured.call(PEER, 9000, "\x16\x03\x01 no TLS") == "ConnectionResetError"
    assert captured.call(PEER, 9000, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == "ConnectionResetError"
    # It waits for the server to speak; it is not kept waiting for ever.
    assert captured.call(PEER, 9000) == "ConnectionResetError"
    assert captured.called(POD, 7000, REQUEST).startswith("HTTP/1.1 502 ")
    assert 'code="unknown-destination"' in captured.ask("/metrics")


def test_the_capturing_ports_themselves(captured: Captured) -> None:
    """Nothing is passed to where it already is, whoever asks, and by whatever address."""
    captured.run(SNAPSHOT)
    for host in ("127.0.0.1", "::1", POD, POD6):
        assert captured.call(host, 15006, REQUEST).startswith("HTTP/1.1 502 ")
    for host in ("127.0.0.1", "::1"):
        assert captured.call(host, 15001, REQUEST).startswith("HTTP/1.1 502 ")
    for host in (POD, POD6):
        assert captured.called(host, 15006, REQUEST).startswith("HTTP/1.1 502 ")
        # The outbound port is on the loopback: a stranger does not get to use the app's identity.
        assert captured.called(host, 15001, REQUEST) == "ConnectionResetError"


def test_a_sidecar_that_captures_itself(captured: Captured) -> None:
    """Run as a user that the rules do not let through, it refuses its own connections and says why."""
    captured.run(SNAPSHOT, uid=1338)
    assert captured.call(PEER, 9000) == "ConnectionResetError"
    open_files = f"/proc/{captured.sidecar.pid}/fd"
    assert len(list(Path(open_files).iterdir())) < 200
    assert captured.call(SERVICE, 80) == "ConnectionResetError"


def test_a_killed_sidecar_fails_closed_until_the_rules_are_gone(captured: Captured) -> None:
    """No connection gets past a dead sidecar; without rules, it is as if there were no mesh."""
    captured.run(SNAPSHOT)
    assert captured.call(PEER, 9000) == "9000"
    captured.sidecar.kill()
    captured.sidecar.wait()
    for host in (PEER, PEER6, SERVICE, SERVICE6):
        assert captured.call(host, 9000) == "ConnectionRefusedError"
    for host in (POD, POD6):
        assert captured.called(host, 7000) == "ConnectionRefusedError"
    captured.intercept("--remove")
    assert captured.call(PEER, 9000) == captured.call(PEER6, 9000) == "9000"
    assert captured.called(POD, 7000) == captured.called(POD6, 7000) == "7000"

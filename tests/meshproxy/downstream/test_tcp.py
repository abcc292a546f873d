"""A client's opaque connection: what it says is the relay's, and what the relay says is done."""

import struct
from typing import Any, cast

import pytest

from meshproxy.contract.resources import TcpRouteSpec
from meshproxy.downstream.tcp import Carrier, TcpConnection
from meshproxy.relay import Relay
from meshproxy.routing.tcp import compile_tcp_route
from meshproxy.telemetry.metrics import TcpSeries
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected


class FakeCaller:
    """Knows no route; whoever begins is refused."""

    direction = "outbound"

    source = ""

    def __init__(self) -> None:
        self.surroundings: Any = Recorder()
        self.tcp_route: Any = compile_tcp_route(TcpRouteSpec(name="empty"), {})
        self.series = TcpSeries()
        self.guard = None
        self.relays: set[Relay] = set()

    def connections(self, route: str, service: str) -> TcpSeries:
        return self.series


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.owner: Any = Recorder()
        self.caller = FakeCaller()
        self.connection = TcpConnection(
            self.loop.as_loop, self.owner, cast("Any", None), self.caller, "a.b"
        )
        self.relay = Recorder()
        self.connection.exchange = cast("Carrier", self.relay)
        self.transport: FakeTransport = connected(self.connection, socket=FakeSocket())


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_begins_when_it_stands(scene: Scene) -> None:
    """The listener knows of it before the relay does anything; the name is handed on."""
    assert scene.owner.heard == [("opened", scene.connection)]
    assert scene.relay.heard == [("begin", "a.b")]


def test_what_the_client_does_is_told(scene: Scene) -> None:
    """Bytes, by either way they come, its pace, and its end."""
    arrive(scene.connection, b"abc")
    told = bytes(scene.relay.heard[-1][1])
    scene.connection.on_bytes(b"d")
    scene.connection.pause_writing()
    scene.connection.resume_writing()
    assert scene.connection.eof_received(), "what is said to it still arrives"
    assert told == b"abc"
    assert scene.relay.words[2:] == [
        "on_downstream_data", "on_downstream_blocked", "on_downstream_writable", "on_downstream_end",
    ]  # fmt: skip


def test_a_loss_is_a_reset(scene: Scene) -> None:
    """And no more than that: the listener forgets the connection."""
    scene.connection.connection_lost(None)
    assert scene.relay.words == ["begin", "on_downstream_reset"]
    assert scene.owner.words == ["opened", "closed"]


def test_after_both_ends_a_loss_is_nothing(scene: Scene) -> None:
    """The story was told to its end."""
    scene.connection.eof_received()
    scene.connection.send_end()
    assert scene.transport.state == "closing"
    scene.connection.connection_lost(None)
    assert scene.relay.words == ["begin", "on_downstream_end"]


def test_who_is_refused_is_reset() -> None:
    """A socket cannot say why; draining and deadlines do nothing to it."""
    scene = Scene()
    scene.connection.drain()
    scene.connection.expire()
    scene.connection.established()
    assert scene.transport.state == "open"
    scene.connection.refuse("no-route")
    assert scene.transport.state == "aborted"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)
    assert repr(scene.connection) == "<TcpConnection open>"


def test_a_relay_of_its_own() -> None:
    """Not only recorders: with no route the connection ends as it begins."""
    owner: Any = Recorder()
    caller = FakeCaller()
    connection = TcpConnection(FakeLoop().as_loop, owner, cast("Any", None), caller)
    transport = FakeTransport()
    transport.socket = FakeSocket()
    connection.connection_made(transport)  # type: ignore[arg-type]
    assert transport.state == "aborted"
    assert caller.series.flags == {"NR": 1}

"""Streams of a trunk, against a peer made of another library."""

from math import inf
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.flow import HIGH_WATER
from meshproxy.policies.flow_sizes import LARGE, FlowSizes
from meshproxy.relay import Side
from meshproxy.upstream.trunk import TrunkConnection, TrunkPool
from tests.helpers.environment import Environment
from tests.helpers.http2 import Heard, Wire, of
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive

OK = [(":status", "200")]


class FakeRelay(Recorder):
    """
    Attributes:
        upstream: The stream that it was given.
        bytes: What came on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.upstream: Any = None
        self.bytes = b""

    def on_upstream_ready(self, upstream: Side) -> None:
        self.upstream = upstream

    def on_upstream_data(self, data: bytes) -> None:
        self.bytes += data


class Scene:
    """A connection that stands, and the other end of its wire."""

    def __init__(
        self, environment: Environment, address: str = "10.0.0.5", **settings: int
    ) -> None:
        self.loop = FakeLoop()
        environment.loop = self.loop.as_loop
        cluster = ClusterSpec(name="broker", mtls=True)
        self.pool = TrunkPool(
            cluster, EndpointSpec(address=address, port=5672), environment, FlowSizes()
        )
        self.transport = FakeTransport()
        self.transport.socket = FakeSocket()
        self.connection = self.pool.successor(self.transport)  # type: ignore[arg-type]
        self.pool._shared.append(self.connection)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.peer = Wire()
        self.say(self.peer.settings(**settings) + self.peer.settings_ack())
        self.hear()

    def relay(self) -> FakeRelay:
        """Let somebody wait for a stream, and get it."""
        relay = FakeRelay()
        self.pool.connect(relay)
        return relay

    def say(self, data: bytes) -> None:
        self.loop.turn()
        arrive(self.connection, data)

    def hear(self) -> list[Heard]:
        """Return the frames that have left since last time."""
        self.loop.turn()
        self.loop.turn()
        sent, self.transport.sent = self.transport.sent, b""
        return self.peer.hear(sent)


@pytest.fixture
async def scene() -> Scene:
    return Scene(Environment())


def resets(heard: list[Heard]) -> list[int]:
    return [h.frame.error_code for h in heard if isinstance(h.frame, RstStreamFrame)]


async def test_data_goes_with_the_request(scene: Scene) -> None:
    """Before the peer has said anything; streams are to be interleaved."""
    relay = scene.relay()
    relay.upstream.send_data(memoryview(b"early"))
    head, data = scene.hear()
    assert head.headers == [
        (":method", "CONNECT"), (":authority", "10.0.0.5:5672"), ("priority", "u=3, i"),
    ]  # fmt: skip
    assert (data.frame.data, data.ended) == (b"early", False)
    assert relay.words == []
    scene.say(scene.peer.headers(1, OK, end=False))
    assert relay.words == ["on_upstream_connected"]


async def test_an_address_of_version_6_is_written_as_one() -> None:
    """In brackets (RFC 3986 section 3.2.2)."""
    scene = Scene(Environment(), "::1")
    scene.relay()
    [head] = scene.hear()
    assert (":authority", "[::1]:5672") in (head.headers or [])


@pytest.mark.parametrize("trailers", [False, True])
async def test_each_half_ends_on_its_own(scene: Scene, trailers: bool) -> None:
    """END_STREAM is an end, with or without trailers; after both the stream is gone."""
    relay = scene.relay()
    peer = scene.peer
    scene.say(peer.headers(1, OK, end=False) + peer.data(1, b"bye", end=not trailers))
    if trailers:
        scene.say(peer.headers(1, [("x-a", "b")]))
    assert relay.bytes == b"bye"
    assert relay.words == ["on_upstream_connected", "on_upstream_end"]
    relay.upstream.send_data(b"more")
    relay.upstream.send_end()
    heard = scene.hear()
    assert b"".join(h.frame.data for h in of(heard, "Data")) == b"more"
    assert of(heard, "Data")[-1].ended
    assert resets(heard) == []
    assert scene.connection.idle


async def test_resets_are_resets(scene: Scene) -> None:
    """In both directions: CONNECT_ERROR is what RST is called here."""
    one, two = scene.relay(), scene.relay()
    scene.say(scene.peer.headers(1, OK, end=False) + scene.peer.reset(1, 10))
    assert one.heard[-1] == ("on_upstream_reset", "upstream-reset")
    scene.hear()
    two.upstream.reset()
    assert resets(scene.hear()) == [10]
    scene.say(scene.peer.data(3, b"late"))
    assert (two.words, two.bytes) == ([], b"")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(":status", "503"), ("x-mesh-refusal", "connect-failed")], "connect-failed"),
        ([(":status", "503"), ("x-mesh-refusal", "made-up")], "stream-refused"),
        ([(":status", "404")], "stream-refused"),
    ],
)
async def test_a_refusal_says_why(scene: Scene, headers: Any, code: str) -> None:
    """Nobody has heard what was sent; the rest of the stream is given up."""
    relay = scene.relay()
    scene.hear()
    scene.say(scene.peer.headers(1, headers))
    assert relay.heard == [("on_upstream_failed", code)]
    assert resets(scene.hear()) == [8]


async def test_what_is_no_answer_is_none(scene: Scene) -> None:
    """Informational heads are passed over; a status that is none ends the stream."""
    relay = scene.relay()
    scene.hear()
    scene.say(scene.peer.headers(1, [(":status", "103")], end=False))
    assert relay.words == []
    scene.say(scene.peer.headers(1, [(":status", "777")], end=False))
    assert relay.heard == [("on_upstream_reset", "upstream-protocol-error")]
    assert resets(scene.hear()) == [1]


@pytest.mark.parametrize(
    ("last_words", "code"),
    [
        (lambda peer: peer.reset(1, 7), "stream-refused"),
        (lambda peer: peer.goaway(0), "stream-refused"),
        (lambda peer: peer.reset(1, 0), "upstream-reset"),
    ],
)
async def test_streams_that_were_not_looked_at(scene: Scene, last_words: Any, code: str) -> None:
    """REFUSED_STREAM and a GOAWAY below it prove that another attempt is harmless."""
    relay = scene.relay()
    scene.hear()
    scene.say(last_words(scene.peer))
    assert relay.heard == [("on_upstream_reset", code)]


async def test_a_lost_connection_resets_all(scene: Scene) -> None:
    """None of them has ended."""
    relays = [scene.relay() for _ in range(3)]
    scene.connection.connection_lost(None)
    assert {relay.heard[-1] for relay in relays} == {("on_upstream_reset", "upstream-closed")}
    assert scene.pool.statistics()["connections"] == 0


async def test_a_slow_reader_is_given_no_credit(scene: Scene) -> None:
    """While the relay has paused the stream; afterwards all of it at once."""
    relay = scene.relay()
    relay.upstream.pause()
    scene.say(scene.peer.headers(1, OK, end=False))
    for _ in range(40):
        scene.say(scene.peer.data(1, b"x" * 16384))
    assert len(relay.bytes) == 40 * 16384
    assert of(scene.hear(), "WindowUpdate", 1) == []
    relay.upstream.resume()
    [update] = of(scene.hear(), "WindowUpdate", 1)
    assert update.frame.window_increment == 40 * 16384


async def test_a_slow_peer_pauses_the_relay() -> None:
    """Its window is closed; when it opens the relay goes on."""
    scene = Scene(Environment(), s4=0)
    relay = scene.relay()
    relay.upstream.send_data(b"x" * (HIGH_WATER + 1))
    assert relay.words == ["on_upstream_blocked"]
    scene.hear()
    scene.say(scene.peer.window(1, HIGH_WATER) + scene.peer.window(0, HIGH_WATER))
    scene.hear()
    assert relay.words == ["on_upstream_blocked", "on_upstream_writable"]


async def test_a_relay_may_stop_waiting(scene: Scene) -> None:
    """When nobody is connected; and no stream is opened on a connection that goes away."""
    scene.pool._shared.clear()
    scene.pool._limits.connections.set(0)
    scene.pool._connections.add(scene.connection)
    relay = scene.relay()
    assert scene.pool.statistics()["waiting"] == 1
    scene.pool.disconnect(relay)
    assert scene.pool.statistics()["waiting"] == 0
    scene.connection.session._engine.terminate_connection(0)
    scene.hear()
    scene.connection.lend(relay)
    assert relay.heard == [("on_upstream_failed", "stream-refused")]


async def test_the_end_of_a_trunk_is_a_new_chance_for_lanes(scene: Scene) -> None:
    """Perhaps the peer is replaced by one that knows them."""
    scene.pool.lanes._shut_until = inf
    scene.pool.sizes.observe(LARGE)
    assert not scene.pool.lanes.wanted
    scene.connection.session._engine.terminate_connection(0)
    scene.hear()
    scene.connection.connection_lost(None)
    assert scene.pool.lanes.wanted


async def test_it_is_a_connection_of_its_own_kind(scene: Scene) -> None:
    """A peer that has agreed on requests, or on nothing, is not spoken to about TCP."""
    assert isinstance(scene.connection, TrunkConnection)

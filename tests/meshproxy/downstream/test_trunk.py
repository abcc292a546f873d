"""Streams that a peer opens on its trunk, with a peer made of another library."""

from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import RstStreamFrame

from meshproxy.codec.http2 import CONNECT_ERROR
from meshproxy.downstream.trunk import TrunkConnection
from tests.helpers.http2 import Heard, Wire, of
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive

CONNECT = [(":method", "CONNECT"), (":authority", "10.0.0.5:5672")]


class Listener(Recorder):
    hop = "inbound of default/broker"


class Scene:
    """A connection that was accepted; its relays are recorders."""

    def __init__(self, *, guesses: bool = False) -> None:
        self.loop = FakeLoop()
        self.owner = Listener()
        self.relays: list[Any] = []
        self.streams: list[Any] = []
        self.connection = TrunkConnection(
            self.loop.as_loop, self.owner, self._begin, 5672, guesses=guesses
        )
        self.transport = FakeTransport()
        self.transport.socket = FakeSocket()
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.peer = Wire()
        self.say(self.peer.hello() + self.peer.settings_ack())
        self.hear()

    def _begin(self, stream: Any) -> Any:
        self.streams.append(stream)
        self.relays.append(Recorder())
        return self.relays[-1]

    def connect(self, *, headers: Any = CONNECT, end: bool = False) -> Any:
        """Open a stream and return its relay."""
        self.say(self.peer.headers(2 * len(self.relays) + 1, headers, end=end))
        return self.relays[-1] if self.relays else None

    def say(self, data: bytes) -> None:
        arrive(self.connection, data)

    def hear(self) -> list[Heard]:
        """Return the frames that have left since last time."""
        self.loop.turn()
        self.loop.turn()
        sent, self.transport.sent = self.transport.sent, b""
        return self.peer.hear(sent)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def resets(heard: list[Heard]) -> list[int]:
    return [h.frame.error_code for h in heard if isinstance(h.frame, RstStreamFrame)]


def test_a_stream_is_a_connection(scene: Scene) -> None:
    """It begins at once; 200 is said when the app is there; bytes and ends pass."""
    relay = scene.connect()
    scene.say(scene.peer.data(1, b"early") + scene.peer.data(1, b"", end=True))
    assert relay.heard == [
        ("begin",), ("on_downstream_data", b"early"), ("on_downstream_end",),
    ]  # fmt: skip
    assert of(scene.hear(), "Headers") == []
    stream = scene.streams[0]
    stream.established()
    stream.send_data(b"answer")
    stream.send_end()
    head, *data = scene.hear()
    assert head.headers == [(":status", "200")]
    assert b"".join(h.frame.data for h in data) == b"answer"
    assert data[-1].ended
    assert scene.connection.idle


@pytest.mark.parametrize(
    "request_line", [b"GET /admin HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\nBREW  /x HTTP/1.0"]
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
def test_requests_do_not_come_this_way(request_line: bytes, size: int) -> None:
    """Where nobody said that a port is opaque, the app hears nothing of what no policy has seen."""
    scene = Scene(guesses=True)
    relay = scene.connect()
    for start in range(0, len(request_line), size):
        scene.say(scene.peer.data(1, request_line[start : start + size]))
        if scene.streams[0].exchange is None:
            break
    assert relay.words == ["begin", "on_downstream_reset"]
    assert ("malformed", "misdirected") in scene.owner.heard
    assert resets(scene.hear()) == [CONNECT_ERROR]
    assert Scene().connect().words == ["begin"]


def test_to_a_server_that_has_spoken_first_everything_passes() -> None:
    """No server of HTTP does: half a line may be the answer that it waits for."""
    scene = Scene(guesses=True)
    relay = scene.connect()
    scene.say(scene.peer.data(1, b"hello"))
    assert relay.words == ["begin"]
    scene.streams[0].established()
    scene.streams[0].send_data(b"220 at your service\r\n")
    scene.say(scene.peer.data(1, b" you"))
    assert relay.heard[1:] == [("on_downstream_data", b"hello"), ("on_downstream_data", b" you")]


def test_what_is_no_request_passes() -> None:
    """All of it, as soon as that is certain; and what ends before is none."""
    scene = Scene(guesses=True)
    relay = scene.connect()
    scene.say(scene.peer.data(1, b"EH"))
    assert relay.words == ["begin"]
    scene.say(scene.peer.data(1, b"LO mail\r\n") + scene.peer.data(1, b"more"))
    assert relay.heard[1:] == [
        ("on_downstream_data", b"EHLO mail\r\n"), ("on_downstream_data", b"more"),
    ]  # fmt: skip
    other = Scene(guesses=True)
    relay = other.connect()
    other.say(other.peer.data(1, b"GE", end=True))
    assert relay.heard[1:] == [("on_downstream_data", b"GE"), ("on_downstream_end",)]


def test_a_half_closed_connection_may_begin_so(scene: Scene) -> None:
    """CONNECT with END_STREAM: the client had said all when it was opened."""
    assert scene.connect(end=True).words == ["begin", "on_downstream_end"]


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "CONNECT"), (":authority", "10.0.0.5:22")],
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a:5672")],
    ],
    ids=["another port", "a request"],
)
def test_it_leads_to_one_place_alone(scene: Scene, headers: Any) -> None:
    """Whoever asks for another one is refused, and counted."""
    assert scene.connect(headers=headers) is None
    heard = scene.hear()
    [head] = of(heard, "Headers")
    assert head.headers == [
        (":status", "421"), ("x-mesh-refusal", "misdirected"), ("content-length", "0"),
    ]  # fmt: skip
    assert scene.owner.heard == [("malformed", "misdirected")]


def test_a_refusal_says_why(scene: Scene) -> None:
    """The answer leaves before the stream is cut; what still comes is dropped."""
    relay = scene.connect()
    scene.say(scene.peer.data(1, b"early"))
    scene.streams[0].refuse("connect-failed")
    scene.streams[0].refuse("connect-failed")
    heard = scene.hear()
    assert [h.kind for h in heard if h.stream] == ["Headers", "RstStream"]
    assert ("x-mesh-refusal", "connect-failed") in (of(heard, "Headers")[0].headers or [])
    assert resets(heard) == [0]
    scene.say(scene.peer.data(1, b"late"))
    assert relay.words == ["begin", "on_downstream_data"]


@pytest.mark.parametrize(
    "lose",
    [
        lambda scene: scene.say(scene.peer.reset(1, 10)),
        lambda scene: scene.connection.connection_lost(None),
    ],
    ids=["reset", "connection lost"],
)
def test_a_lost_stream_is_a_reset(scene: Scene, lose: Callable[[Scene], None]) -> None:
    """Never an end; afterwards nothing can be said on it."""
    relay = scene.connect()
    lose(scene)
    assert relay.words == ["begin", "on_downstream_reset"]
    stream = scene.streams[0]
    stream.established()
    stream.refuse("connect-failed")
    stream.send_data(b"x")


def test_the_apps_reset_is_told(scene: Scene) -> None:
    """CONNECT_ERROR, which is what RST is called here."""
    relay = scene.connect()
    scene.streams[0].established()
    scene.hear()
    scene.streams[0].reset()
    assert resets(scene.hear()) == [10]
    assert relay.words == ["begin"]


def test_a_slow_app_gives_no_credit(scene: Scene) -> None:
    """What it does not take is not acknowledged, until it does."""
    scene.connect()
    stream = scene.streams[0]
    stream.pause()
    for _ in range(40):
        scene.say(scene.peer.data(1, b"x" * 16384))
    assert of(scene.hear(), "WindowUpdate", 1) == []
    stream.resume()
    assert len(of(scene.hear(), "WindowUpdate", 1)) == 1


def test_a_slow_peer_pauses_the_app(scene: Scene) -> None:
    """Its windows are small; when they open the relay goes on."""
    relay = scene.connect()
    stream = scene.streams[0]
    stream.established()
    stream.send_data(b"x" * 400_000)
    scene.hear()
    assert relay.words == ["begin", "on_downstream_blocked"]
    scene.say(scene.peer.window(1, 400_000) + scene.peer.window(0, 400_000))
    scene.hear()
    assert relay.words == ["begin", "on_downstream_blocked", "on_downstream_writable"]


def test_malformed_streams_end_alone(scene: Scene) -> None:
    """Too many fields: only this stream is reset."""
    scene.connect(headers=[*CONNECT, *((f"x-{i}", "y") for i in range(300))])
    assert resets(scene.hear()) == [1]
    assert scene.owner.words == ["malformed"]
    assert scene.transport.state == "open"


def test_draining_takes_no_more(scene: Scene) -> None:
    """Streams that are open go on; the last one takes the connection along."""
    relay = scene.connect()
    scene.connection.drain()
    assert of(scene.hear(), "GoAway")
    scene.say(scene.peer.data(1, b"still here"))
    assert relay.words[-1] == "on_downstream_data"

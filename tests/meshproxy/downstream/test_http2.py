"""A client's HTTP/2 connection: every stream an exchange, against a client of another library."""

from math import inf
from typing import Any

import pytest
from hyperframe.frame import HeadersFrame

from meshproxy.codec.budget import PEER, Allowance
from meshproxy.downstream.http1 import (
    CLOSE_TIMEOUT,
    FIRST_TIMEOUT,
    HEAD_TIMEOUT,
    IDLE_TIMEOUT,
)
from meshproxy.downstream.http2 import SHUTDOWN_TIMEOUT, Http2Connection, Http2Stream
from meshproxy.flow import HIGH_WATER
from meshproxy.message import CHUNKED, ResponseHead, field
from tests.helpers.http2 import GET, POST, Heard, Wire, of
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, arrive, connected


class FakeListener:
    """Owns the connection; writes down what it is told."""

    def __init__(self) -> None:
        self.hop = "outbound of default/storefront"
        self.gone: list[Http2Connection] = []
        self.refused: list[str] = []

    def closed(self, connection: Http2Connection) -> None:
        self.gone.append(connection)

    def malformed(self, code: str) -> None:
        self.refused.append(code)


GET_HEAD = Wire().headers(1, GET)


class Scene:
    """One connection, its client, and the exchanges that were begun on it."""

    def __init__(
        self, allowance: Allowance = PEER, *, greeted: bool = True, **settings: int
    ) -> None:
        self.loop = FakeLoop()
        self.listener = FakeListener()
        self.streams: list[Http2Stream] = []
        self.exchanges: list[Recorder] = []
        self.connection = Http2Connection(self.loop.as_loop, self.listener, self._begin, allowance)
        self.transport = connected(self.connection)
        self.client = Wire()
        self._read = 0
        if greeted:
            self.arrive(self.client.hello(**settings) + self.client.settings_ack())
            self.hear()

    def _begin(self, stream: Http2Stream) -> Any:
        self.streams.append(stream)
        self.exchanges.append(Recorder())
        return self.exchanges[-1]

    def arrive(self, data: bytes) -> None:
        arrive(self.connection, data)

    def hear(self) -> list[Heard]:
        """Return the frames that have left since last time, this turn's included."""
        self.loop.turn()
        self.loop.turn()
        new = self.transport.sent[self._read :]
        self._read = len(self.transport.sent)
        return self.client.hear(new)

    @property
    def patience(self) -> float:
        """Seconds until the sweep would end the wait."""
        return self.connection.deadline - self.loop.now


def test_many_at_once_each_with_its_own_answer() -> None:
    """Answers come in whatever order they are ready, in one write per turn."""
    scene = Scene()
    scene.arrive(b"".join(scene.client.headers(n, GET) for n in (1, 3, 5)))
    assert [exchange.words for exchange in scene.exchanges] == [["on_request_head"]] * 3
    writes = scene.transport.writes
    for stream in reversed(scene.streams):
        stream.send_head(ResponseHead(200, [field(b"X-A", b"b")], 2))
        stream.send_data(b"%02d" % stream.id)
        stream.send_end(None)
    heard = scene.hear()
    assert scene.transport.writes == writes + 1
    assert sorted(h.stream for h in of(heard, "Headers")) == [1, 3, 5]
    assert of(heard, "Headers", 5)[0].headers == [
        (":status", "200"),
        ("x-a", "b"),
        ("content-length", "2"),
    ]
    assert [(h.frame.data, h.ended) for h in of(heard, "Data", 5)] == [(b"05", True)]
    assert scene.connection.idle
    assert repr(scene.connection) == "<Http2Connection open, 0 streams>"


def test_bodies_and_trailers_both_ways() -> None:
    """Data is passed on as it comes; trailers ride on the end."""
    scene = Scene()
    client = scene.client
    scene.arrive(client.headers(1, POST, end=False) + client.data(1, b"abc"))
    scene.arrive(client.headers(1, [("x-sum", "3")]))
    [exchange], [stream] = scene.exchanges, scene.streams
    assert exchange.heard[1:] == [
        ("on_request_data", b"abc"),
        ("on_request_end", [field(b"X-Sum", b"3")]),
    ]
    stream.send_informational(ResponseHead(103, [field(b"link", b"x")]))
    stream.send_head(ResponseHead(200, [], CHUNKED))
    stream.send_data(b"defg")
    stream.send_end([field(b"Grpc-Status", b"0")])
    heard = scene.hear()
    assert [h.headers and h.headers[0] for h in of(heard, "Headers")] == [
        (":status", "103"),
        (":status", "200"),
        ("grpc-status", "0"),
    ]
    assert of(heard, "Headers")[-1].ended


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", ResponseHead(200, [], 7)),
        ("HEAD", ResponseHead(200, [], CHUNKED)),
        ("GET", ResponseHead(204, [])),
        ("GET", ResponseHead(304, [], 7)),
        ("GET", ResponseHead(200, [], 0)),
    ],
)
def test_answers_without_a_body_are_one_frame(method: str, head: ResponseHead) -> None:
    """And whatever the exchange says after such a head adds nothing."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, [(":method", method), *GET[1:]]))
    scene.streams[0].send_head(head)
    scene.streams[0].send_end(None)
    heard = scene.hear()
    assert [h.kind for h in heard] == ["Headers"]
    assert heard[0].ended


def test_malformed_requests_are_answered_and_harm_nobody_else() -> None:
    """400 on their own stream, counted; the connection goes on."""
    scene = Scene()
    bad = [*GET[:3], (":path", "/a#b")]
    scene.arrive(scene.client.headers(1, bad) + scene.client.headers(3, GET))
    heard = scene.hear()
    [answer] = of(heard, "Headers", 1)
    assert answer.headers is not None
    assert (":status", "400") in answer.headers
    assert ("x-mesh-refusal", "malformed-request") in answer.headers
    assert scene.listener.refused == ["malformed-request"]
    assert len(scene.exchanges) == 1
    assert scene.transport.state == "open"


def test_trailers_that_are_malformed_tear_the_request() -> None:
    """Half of a request must not be taken for all of it."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, POST, end=False))
    scene.arrive(scene.client.headers(1, [("x_mesh_a", "b")]))
    assert scene.exchanges[0].words == ["on_request_head", "on_request_reset"]
    scene.hear()
    assert scene.listener.refused == ["malformed-request"]


def test_a_client_that_gives_up() -> None:
    """The exchange hears of it, once, and nothing more is said on the stream."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, POST, end=False) + scene.client.reset(1))
    assert scene.exchanges[0].words == ["on_request_head", "on_request_reset"]
    stream = scene.streams[0]
    stream.send_head(ResponseHead(200, [], 3))
    stream.send_data(b"abc")
    stream.send_end(None)
    stream.reset()
    assert not of(scene.hear(), "Headers")
    assert scene.transport.state == "open"


def test_a_torn_response_is_a_reset() -> None:
    """The client must not take what it has for all of it."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, GET))
    scene.streams[0].send_head(ResponseHead(200, [], 10))
    scene.streams[0].send_data(b"abc")
    scene.hear()
    scene.streams[0].reset()
    heard = scene.hear()
    assert [(h.kind, h.frame.error_code) for h in heard] == [("RstStream", 2)]
    assert scene.exchanges[0].words == ["on_request_head"]


def test_a_response_that_was_torn_at_once_is_said_as_far_as_it_was() -> None:
    """A reset drops what waits, and what an app has said before it closed may wait for others."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, GET))
    scene.streams[0].send_head(ResponseHead(200, [], 10))
    scene.streams[0].send_data(b"abc")
    scene.streams[0].reset()
    assert [heard.kind for heard in scene.hear()] == ["Headers", "Data", "RstStream"]


@pytest.mark.parametrize("words", ["an answer", "informational"])
def test_answers_wait_for_others_and_nothing_else_does(words: str) -> None:
    """What many apps say leaves together; a client that waits for 100 is not kept waiting."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, POST, end=False))
    scene.hear()
    if words == "an answer":
        scene.streams[0].send_head(ResponseHead(200, [], 10))
    else:
        scene.streams[0].send_informational(ResponseHead(100, [], None))
    before = scene.transport.writes
    scene.loop.turn()
    assert scene.transport.writes == before + (words != "an answer")
    scene.loop.turn()
    assert scene.transport.writes == before + 1


def test_an_answer_before_the_request_has_ended() -> None:
    """It leaves in full, then the client is told not to send the rest (RFC 9113 section 8.1)."""
    scene = Scene(s4=10)
    scene.arrive(scene.client.headers(1, POST, end=False) + scene.client.data(1, b"abc"))
    stream = scene.streams[0]
    stream.send_head(ResponseHead(413, [], 20))
    stream.send_data(b"x" * 20)
    stream.send_end(None)
    heard = scene.hear()
    assert sum(len(h.frame.data) for h in of(heard, "Data")) == 10
    assert not of(heard, "RstStream")
    for _ in range(50):
        scene.arrive(scene.client.data(1, b"more" * 4000))
    assert not of(scene.hear(), "WindowUpdate"), "nobody takes it"
    scene.arrive(scene.client.window(1, 100) + scene.client.data(1, b"more"))
    heard = scene.hear()
    assert of(heard, "Data")[-1].ended
    assert [h.frame.error_code for h in of(heard, "RstStream")] == [0]
    assert scene.connection.session.held == 0
    assert scene.exchanges[0].words == ["on_request_head", "on_request_data"]


def test_a_client_that_does_not_read_blocks_its_stream_only() -> None:
    """Above the high-water mark the exchange is told, and again when the client has read."""
    scene = Scene(s4=1000)
    scene.arrive(scene.client.headers(1, GET) + scene.client.headers(3, GET))
    slow, quick = scene.streams
    for stream in (slow, quick):
        stream.send_head(ResponseHead(200, [], CHUNKED))
    slow.send_data(b"x" * HIGH_WATER)
    assert "on_downstream_blocked" not in scene.exchanges[0].words
    slow.send_data(b"x")
    assert slow.blocked
    assert scene.exchanges[0].words[-1] == "on_downstream_blocked"
    quick.send_data(b"y" * 500)
    assert len(of(scene.hear(), "Data", 3)) == 1
    assert not quick.blocked

    client = scene.client
    scene.arrive(client.window(1, HIGH_WATER) + client.window(0, HIGH_WATER))
    scene.hear()
    assert scene.exchanges[0].words[-1] == "on_downstream_writable"
    assert [slow.blocked, quick.blocked] == [False, False]
    assert "on_downstream_blocked" not in scene.exchanges[1].words


def test_an_upstream_that_does_not_read_stops_this_client_stream_only() -> None:
    """A paused stream is not credited; a resumed one is, with all that was held."""
    scene = Scene()
    client = scene.client
    scene.arrive(client.headers(1, POST, end=False) + client.headers(3, POST, end=False))
    slow, quick = scene.streams
    slow.pause_request()
    chunk = b"x" * 16384
    for stream in (slow, quick):
        for _ in range(40):
            scene.arrive(client.data(stream.id, chunk))
    heard = scene.hear()
    assert not of(heard, "WindowUpdate", 1)
    assert sum(h.frame.window_increment for h in of(heard, "WindowUpdate", 3)) > 500_000
    assert scene.connection.session.held == 40 * len(chunk)
    slow.resume_request()
    assert of(scene.hear(), "WindowUpdate", 1)
    assert scene.connection.session.held == 0


def test_a_blocked_transport_is_not_written_to() -> None:
    """What waits is flushed when it goes on."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, GET))
    scene.connection.pause_writing()
    scene.streams[0].send_head(ResponseHead(200, [], 2))
    assert scene.hear() == []
    scene.connection.resume_writing()
    assert of(scene.hear(), "Headers", 1)


def test_draining_lets_streams_end() -> None:
    """GOAWAY in two steps; the streams under way are answered, then the connection closes."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, GET))
    scene.connection.drain()
    scene.connection.drain()
    heard = scene.hear()
    [notice], [ping] = of(heard, "GoAway"), of(heard, "Ping")
    assert notice.frame.last_stream_id == 2**31 - 1
    scene.arrive(scene.client.headers(3, GET))  # crossed with the notice
    scene.arrive(scene.client.ping(ping.frame.opaque_data, ack=True))
    [last] = of(scene.hear(), "GoAway")
    assert last.frame.last_stream_id == 3
    assert scene.transport.state == "open"
    for stream in scene.streams:
        stream.send_head(ResponseHead(204, []))
        stream.send_end(None)
    assert len(of(scene.hear(), "Headers")) == 2
    assert scene.transport.state == "closing"


def test_draining_does_not_wait_for_a_client_that_answers_no_pings() -> None:
    """After a while the second step comes anyway, and an idle connection is closed."""
    scene = Scene()
    scene.connection.drain()
    assert scene.patience == SHUTDOWN_TIMEOUT
    scene.hear()
    scene.connection.expire()
    assert len(of(scene.hear(), "GoAway")) == 1
    assert scene.transport.state == "closing"


def test_deadlines() -> None:
    """Waiting for a first request, none while streams are open, long between them; then it drains."""
    scene = Scene()
    assert scene.patience == FIRST_TIMEOUT
    scene.arrive(scene.client.headers(1, GET))
    scene.connection.expire()
    assert (scene.connection.deadline, scene.transport.state) == (inf, "open")
    scene.streams[0].send_head(ResponseHead(204, []))
    scene.hear()
    assert scene.patience == IDLE_TIMEOUT
    scene.connection.expire()
    assert of(scene.hear(), "GoAway")
    scene.connection.close()
    assert scene.patience == CLOSE_TIMEOUT
    scene.connection.expire()
    assert scene.transport.state == "aborted"


def test_a_head_that_has_begun_must_come() -> None:
    """Half a frame, or a block that goes on and on, one byte at a time: the wait does not begin anew."""
    for begun in (GET_HEAD[:7], GET_HEAD[:12], HeadersFrame(1, b"\x82").serialize()):
        scene = Scene()
        scene.arrive(begun)
        assert scene.patience == HEAD_TIMEOUT
        scene.loop.now += 4
        scene.arrive(GET_HEAD[len(begun) :][:1] or b"\0")
        assert scene.patience == HEAD_TIMEOUT - 4
        scene.connection.expire()
        assert of(scene.hear(), "GoAway")
        scene.connection.expire()
        scene.hear()
        assert scene.transport.state == "closing"


def test_a_head_that_comes_in_parts_is_served() -> None:
    """It has its time; and between requests a client may keep the connection alive as it likes."""
    scene = Scene()
    for byte in GET_HEAD:
        scene.arrive(bytes([byte]))
    assert scene.exchanges[0].words == ["on_request_head"]
    scene.connection.expire()
    assert scene.transport.state == "open"
    scene.streams[0].send_head(ResponseHead(204, []))
    scene.hear()
    client = scene.client
    scene.arrive(client.ping() + client.window(0, 1))
    scene.arrive(client.settings(s4=70_000))
    scene.hear()
    assert scene.patience == IDLE_TIMEOUT


def test_a_lost_connection_ends_every_exchange() -> None:
    """Each hears of it once; the listener forgets the connection."""
    scene = Scene()
    scene.arrive(scene.client.headers(1, GET) + scene.client.headers(3, GET))
    scene.connection.connection_lost(None)
    assert [exchange.words[-1] for exchange in scene.exchanges] == ["on_request_reset"] * 2
    assert scene.listener.gone == [scene.connection]
    scene.streams[0].send_head(ResponseHead(200, []))
    scene.streams[0].resume_request()
    scene.loop.turn()

"""What the HTTP/2 connections of both sides share: one flush a turn, and marks for each stream."""

from typing import Any

import pytest

from meshproxy.codec.http2 import WORTH_SAYING, Session
from meshproxy.flow import HIGH_WATER, LOW_WATER, TIGHT
from meshproxy.multiplex import Link, Stream
from tests.helpers.transport import FakeLoop, FakeTransport, arrive, connected


class FakeSession(Session):
    """Counts what it is told; what is queued and what is to be sent, the test says."""

    def __init__(self) -> None:
        self.closed = False
        self.has_words = False
        self.to_send = b""
        self.waits: dict[int, int] = {}
        self.fed = b""
        self.credited: list[tuple[int, int]] = []
        self.settled: list[tuple[int, int]] = []
        self.held = 0
        self.streams = {}
        self.resets: list[tuple[int, int]] = []

    @property
    def wants_write(self) -> bool:
        return self.has_words

    def feed(self, data: bytes | memoryview, now: float) -> None:
        self.fed += data
        self.on_fed()

    def on_fed(self) -> None: ...

    def data_to_send(self) -> bytes:
        data, self.to_send = self.to_send, b""
        return data

    def queued(self, stream_id: int) -> int:
        return self.waits.get(stream_id, 0)

    def send_data(self, stream_id: int, data: bytes | memoryview, last: bool = False) -> None:
        self.waits[stream_id] = self.queued(stream_id) + len(data)

    def send_end(self, stream_id: int, trailers: object) -> None: ...

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.append((stream_id, code))

    def hold(self, amount: int) -> None:
        self.held += amount

    def acknowledge(self, stream_id: int, amount: int) -> None:
        self.credited.append((stream_id, amount))

    def settle(self, stream_id: int, amount: int) -> None:
        self.settled.append((stream_id, amount))

    def release(self, stream_id: int, amount: int) -> None:
        self.held -= amount
        self.acknowledge(stream_id, amount)

    def close(self) -> None:
        self.closed = True
        self.to_send += b"bye"


class Scene:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.session = FakeSession()
        self.link = Link(self.loop.as_loop, self.session)
        self.transport: FakeTransport = connected(self.link)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_write_a_turn(scene: Scene) -> None:
    """However often somebody wants to flush."""
    scene.session.to_send = b"abc"
    for _ in range(3):
        scene.link.flush_soon()
    assert scene.transport.sent == b""
    scene.loop.turn()
    assert (scene.transport.sent, scene.transport.writes) == (b"abc", 1)
    scene.loop.turn()
    scene.link.flush_soon()
    scene.loop.turn()
    assert scene.transport.writes == 1, "nothing is nothing"


def a_stream_of(scene: Scene) -> Stream[Link[FakeSession], None]:
    stream = Stream[Link[FakeSession], None](scene.link)
    stream.id = 1
    return stream


def test_words_of_many_connections_leave_together(scene: Scene) -> None:
    """Those of this turn and of the next: the loop has looked for more in between."""
    stream = a_stream_of(scene)
    scene.session.to_send = b"one "
    stream.send_data(b"one ")
    scene.loop.turn()
    assert scene.transport.sent == b""
    scene.session.to_send += b"two"
    scene.session.has_words = True
    stream.send_data(b"two")
    arrive(scene.link, b"x")
    scene.loop.turn()
    assert (scene.transport.sent, scene.transport.writes) == (b"one two", 1)
    scene.loop.two_turns()
    assert scene.transport.writes == 1


def test_the_end_of_a_message_is_put_off_like_the_rest(scene: Scene) -> None:
    stream = a_stream_of(scene)
    scene.session.to_send = b"end"
    stream.send_end(None)
    scene.loop.turn()
    assert scene.transport.sent == b""
    scene.loop.turn()
    assert scene.transport.sent == b"end"


def test_whoever_cannot_wait_takes_along_what_was_put_off(scene: Scene) -> None:
    """What is said for the connection's sake, or has come joined."""
    stream = a_stream_of(scene)
    scene.session.to_send = b"word "
    stream.send_data(b"word ")
    scene.session.to_send += b"ping"
    scene.link.flush_soon()
    scene.loop.turn()
    assert scene.transport.sent == b"word ping"
    stream.send_data(b"more")
    scene.session.to_send += b" more"
    scene.loop.two_turns()
    assert scene.transport.sent == b"word ping more"


def test_what_has_come_joined_goes_on_at_once(scene: Scene) -> None:
    """From one connection of many exchanges to another; also after one that was fed nonsense."""
    other = Scene()
    origin = Link(scene.loop.as_loop, other.session)
    connected(origin)
    stream = a_stream_of(scene)
    scene.session.to_send = b"one"
    stream.send_data(b"on")
    other.session.on_fed = lambda: stream.send_data(b"e")  # type: ignore[method-assign]
    arrive(origin, b"x")
    scene.loop.turn()
    assert scene.transport.sent == b"one"
    scene.loop.turn()

    def fail() -> None:
        raise RuntimeError

    other.session.on_fed = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        arrive(origin, b"x")
    scene.session.to_send = b"two"
    stream.send_data(b"two")
    scene.loop.turn()
    assert scene.transport.sent == b"one"
    scene.loop.turn()
    assert scene.transport.sent == b"onetwo"


def test_what_was_said_leaves_before_the_reset(scene: Scene) -> None:
    """A reset drops what waits: half an answer that was there in time is not lost by waiting."""
    stream = a_stream_of(scene)
    scene.session.to_send = b"half"
    stream.send_data(b"half")
    scene.loop.turn()
    stream.tear(2)
    assert (scene.transport.sent, scene.session.resets) == (b"half", [(1, 2)])

    given_up = a_stream_of(scene)
    scene.session.to_send = b"head"
    given_up.send_data(b"head")
    given_up.end_by_reset(8)
    assert (scene.transport.sent, scene.session.resets) == (b"half", [(1, 2), (1, 8)])


def test_bytes_go_to_the_session_and_its_answer_out(scene: Scene) -> None:
    """By the shared buffer, or handed on by who read the first of them."""
    scene.session.to_send, scene.session.has_words = b"ack", True
    arrive(scene.link, b"ab")
    scene.link.on_bytes(b"c")
    scene.loop.turn()
    assert (scene.session.fed, scene.transport.sent) == (b"abc", b"ack")


def test_a_session_that_has_closed_takes_the_connection_along(scene: Scene) -> None:
    """After its last words; nothing is written to a transport that closes."""
    scene.session.closed = True
    arrive(scene.link, b"x")
    assert (scene.transport.sent, scene.transport.state) == (b"bye", "closing")
    scene.session.to_send = b"more"
    scene.link.close()
    scene.link.flush()
    assert scene.transport.sent == b"bye"


def test_a_session_may_close_while_it_sends(scene: Scene) -> None:
    """The last stream has ended: what was sent is all."""
    scene.session.to_send = b"end"
    scene.session.closed = True
    scene.link.flush_soon()
    scene.loop.turn()
    assert scene.transport.sent.startswith(b"end")
    assert scene.transport.state == "closing"


def test_a_blocked_transport_holds_everything(scene: Scene) -> None:
    """And everything goes on with it."""
    scene.session.to_send = b"abc"
    scene.link.pause_writing()
    scene.link.flush_soon()
    scene.loop.turn()
    assert scene.transport.sent == b""
    scene.link.resume_writing()
    assert scene.transport.sent == b"abc"


def test_marks_of_a_stream(scene: Scene) -> None:
    """Blocked above the high-water mark, and until it is down to the low one."""
    stream: Stream[Any, Any] = Stream(scene.link, 1)
    seen = []
    for more in (HIGH_WATER, 1):
        stream.send_data(b"x" * more)
        seen.append(stream.blocked)
    assert scene.link.blocked_streams == [stream]
    for waits in (LOW_WATER + 1, LOW_WATER):
        scene.session.waits[1] = waits
        scene.link.flush()
        seen.append(stream.blocked)
    assert seen == [False, True, True, False]
    assert scene.link.blocked_streams == []


def test_credit_of_a_stream(scene: Scene) -> None:
    """When it is worth saying, or, when paused, all of it at the end of the pause, or of the stream."""
    stream: Stream[Any, Any] = Stream(scene.link, 1)
    session = scene.session
    stream.took(WORTH_SAYING)
    stream.pause()
    stream.took(6)
    stream.took(7)
    assert (session.credited, session.held) == ([(1, WORTH_SAYING)], 13)
    stream.resume()
    assert (session.credited[1:], session.held) == ([(1, 13)], 0)
    stream.pause()
    stream.took(8)
    stream.gone()
    assert (session.credited[2:], session.held) == ([(1, 8)], 0)


def test_small_amounts_are_credited_together(scene: Scene) -> None:
    """A thousand bytes a time change no window; what a stream leaves over is its connection's."""
    stream: Stream[Any, Any] = Stream(scene.link, 1)
    for _ in range(20):
        stream.took(1000)
    credited = scene.session.credited
    assert [amount for _, amount in credited] == [9000, 9000]
    assert scene.session.settled == []
    stream.gone()
    assert (credited[2:], scene.session.settled) == ([], [(1, 2000)])


def test_after_its_end_a_stream_says_nothing(scene: Scene) -> None:
    """Whoever still holds it may call it; nothing happens."""
    stream: Stream[Any, Any] = Stream(scene.link, 1)
    stream.end_by_reset(8)
    stream.send_data(b"x")
    stream.gone()
    stream.send_data(b"x")
    stream.send_end(None)
    stream.end_by_reset(8)
    assert (scene.session.resets, scene.session.waits) == ([(1, 8)], {})


def test_abort(scene: Scene) -> None:
    """At once and without a word."""
    scene.session.to_send = b"abc"
    scene.link.abort()
    scene.link.flush()
    assert (scene.transport.sent, scene.transport.state) == (b"", "aborted")


def test_while_memory_is_short_little_waits(scene: Scene) -> None:
    """In a stream and in the transport; a stream goes on by the marks that hold when it is flushed."""
    stream: Stream[Any, Any] = Stream(scene.link, 1)
    scene.link.turn.tighten(True)
    seen = []
    for more in (TIGHT, 1):
        stream.send_data(bytes(more))
        seen.append(stream.blocked)
    scene.session.to_send, scene.session.waits[1] = b"x", TIGHT // 4 + 1
    for tight in (True, False):
        scene.link.turn.tighten(tight)
        scene.link.flush()
        seen.append(stream.blocked)
    assert seen == [False, True, True, False]
    assert scene.transport.limits == (TIGHT, TIGHT // 4)

"""One opaque connection on one TLS connection: ends, resets and pace, told by its dialled kind."""

import struct
from typing import Any

import pytest

from meshproxy.codec.segments import END, HEARD, WITHDRAWN, header, segment
from meshproxy.flow import HIGH_WATER, LOW_WATER, TIGHT
from meshproxy.lane import BURST, HEADER_COSTS, Lane
from meshproxy.policies.flow_sizes import Flow, FlowSizes
from meshproxy.upstream.lane import LaneConnection
from tests.helpers.recorder import Recorder
from tests.helpers.transport import (
    FakeLoop,
    FakeSocket,
    FakeTransport,
    arrive,
    connected,
    unanswered,
)

HELLO = segment(b"accepted")


class Scene:
    """A lane that stands and is used; one that tells what it hears."""

    def __init__(self) -> None:
        self.heard = Recorder()
        flow = Flow(FlowSizes())
        self.loop = FakeLoop()
        connection = LaneConnection(self.loop.as_loop, self.heard, b"a:1", flow)
        self.side: Lane = connection
        self.transport: FakeTransport = connected(self.side, tls=True)
        self.transport.socket = FakeSocket()
        connection.lend(self.heard)
        self.sent()

    def say(self, data: bytes) -> None:
        arrive(self.side, data)

    def sent(self) -> bytes:
        sent, self.transport.sent = self.transport.sent, b""
        return sent

    def words(self) -> list[Any]:
        """Return what was heard after the beginning."""
        return [word.removeprefix("on_upstream_") for word in self.heard.words[1:]]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_said_leaves_at_once(scene: Scene) -> None:
    """Views, too: they are not kept.  Small pieces with their length in one write."""
    before = scene.transport.writes
    scene.side.send_word(b"hello")
    buffer = bytearray(b"data")
    scene.side.send_data(memoryview(buffer))
    buffer[:] = b"xxxx"
    assert scene.transport.writes == before + 2
    assert scene.sent() == segment(b"hello") + segment(b"data")
    scene.side.send_data(b"y" * 100_000)
    assert scene.sent() == header(100_000) + b"y" * 100_000


def test_nothing_is_no_segment(scene: Scene) -> None:
    """It would be an end."""
    scene.side.send_data(b"")
    assert scene.sent() == b""


def test_each_half_ends_on_its_own(scene: Scene) -> None:
    """Ends are acknowledged; when all that was said has arrived, both ways, it is closed."""
    scene.say(HELLO + segment(b"x") + END)
    assert scene.words() == ["connected", "data", "end"]
    assert scene.sent() == HEARD
    scene.side.send_data(b"more")
    scene.side.send_end()
    scene.side.send_end()
    scene.side.send_data(b"late")
    assert scene.sent() == segment(b"more") + END
    assert scene.transport.state == "open"
    scene.say(HEARD)
    assert scene.transport.state == "closing"
    scene.side.connection_lost(None)
    assert scene.words() == ["connected", "data", "end", "lost"]


def test_we_may_be_the_first_to_end(scene: Scene) -> None:
    """Then the other end's is the last word."""
    scene.say(HELLO)
    scene.side.send_end()
    scene.say(HEARD)
    assert scene.transport.state == "open"
    scene.say(END)
    assert scene.sent() == END + HEARD
    assert scene.transport.state == "closing"


@pytest.mark.parametrize("said", [b"", HELLO, HELLO + header(9) + b"eight", HELLO + END])
def test_what_breaks_off_is_torn(scene: Scene, said: bytes) -> None:
    """TLS may have been closed as properly as it likes."""
    scene.say(said)
    assert not scene.side.eof_received()
    scene.side.connection_lost(None)
    assert scene.words()[-2:] == ["reset", "lost"]


def test_a_reset_is_none_of_the_ends(scene: Scene) -> None:
    """It overtakes what has not left, and nothing more is heard."""
    scene.side.reset()
    assert scene.transport.state == "aborted"
    assert scene.transport.socket is not None
    assert scene.transport.socket.lingers == struct.pack("ii", 1, 0)
    scene.say(HELLO)
    assert scene.words() == []


def test_who_has_vanished_is_reset(scene: Scene) -> None:
    """TCP says so; who only does not read stays."""
    with unanswered(repeated=0) as scene.transport.socket:
        scene.side.look()
        assert scene.transport.state == "open"
    with unanswered() as scene.transport.socket:
        scene.side.look()
        assert scene.transport.state == "aborted"


def test_a_withdrawal_is_quiet(scene: Scene) -> None:
    """Neither an end nor a reset; and the other end is told so."""
    scene.side.withdraw()
    assert scene.sent() == WITHDRAWN
    assert scene.transport.state == "closing"
    scene.say(HELLO)
    scene.side.connection_lost(None)
    assert scene.words() == ["lost"]


def test_what_was_not_said_cannot_have_arrived(scene: Scene) -> None:
    """Who acknowledges an end that there was not knows something else than we do."""
    scene.say(HELLO + HEARD)
    assert scene.heard.heard[-1] == ("on_upstream_reset", "upstream-protocol-error")


def test_pace(scene: Scene) -> None:
    """It is TCP's: a lane has nobody beside it who would have to wait."""
    scene.side.pause()
    assert not scene.transport.is_reading()
    scene.side.resume()
    assert scene.transport.is_reading()


def test_others_have_their_turn(scene: Scene) -> None:
    """Who sends without end is stopped until the turn has ended."""
    for _ in range(BURST // 65536):
        assert scene.words() == []
        scene.side.send_data(b"x" * 65536)
    assert scene.words() == ["blocked"]
    scene.side.send_data(b"x" * 65536)
    scene.loop.turn()
    assert scene.words() == ["blocked", "writable"]
    scene.side.send_data(b"x" * 65536)
    scene.loop.turn()
    assert scene.words() == ["blocked", "writable"]


@pytest.mark.parametrize("paused", [False, True])
def test_so_have_they_when_much_is_heard(scene: Scene, paused: bool) -> None:
    """It is read on in the next turn, unless the relay wants it otherwise."""
    scene.say(HELLO + header(4 * BURST))
    for _ in range(BURST // 65536):
        scene.say(b"x" * 65536)
    assert not scene.transport.is_reading()
    if paused:
        scene.side.pause()
    else:
        scene.side.resume()
        assert not scene.transport.is_reading()
    scene.loop.turn()
    assert scene.transport.is_reading() != paused


def test_small_segments_cost_more_than_their_bytes(scene: Scene) -> None:
    """Who sends thousands of them is read on when the others had their turn."""
    scene.say(HELLO + segment(b"x") * 100)
    assert scene.transport.is_reading()
    scene.say(segment(b"x") * (BURST // HEADER_COSTS))
    assert not scene.transport.is_reading()
    scene.loop.turn()
    assert scene.transport.is_reading()


def test_a_turn_may_end_after_the_lane(scene: Scene) -> None:
    """Or while its transport cannot take more: then that says when to go on."""
    scene.side.send_data(b"x" * BURST)
    scene.side.pause_writing()
    scene.loop.turn()
    assert scene.words() == ["blocked", "blocked"]
    scene.side.resume_writing()
    scene.side.send_data(b"x" * BURST)
    scene.side.connection_lost(None)
    scene.loop.turn()
    assert scene.words()[2:] == ["writable", "blocked", "reset", "lost"]


def test_bytes_of_before_are_read(scene: Scene) -> None:
    """What has been read of a connection before it turned out to be a lane."""
    scene.side.on_bytes(HELLO)
    assert scene.words() == ["connected"]


def test_who_has_gone_is_told_nothing(scene: Scene) -> None:
    """Whatever is still said to it."""
    scene.side.connection_lost(None)
    scene.side.send_word(b"x")
    scene.side.send_data(b"x")
    scene.side.send_end()
    scene.side.reset()
    assert scene.sent() == b""


def test_while_memory_is_short_little_waits(scene: Scene) -> None:
    """The transport is told with what is said, and again when it has been full; TLS is read as before."""
    buffer = len(scene.side.get_buffer(-1))
    scene.side.turn.tighten(True)
    scene.side.send_data(b"x")
    assert scene.transport.limits == (TIGHT, TIGHT // 4)
    assert len(scene.side.get_buffer(-1)) == buffer
    scene.side.turn.tighten(False)
    scene.side.pause_writing()
    scene.side.resume_writing()
    assert scene.transport.limits == (HIGH_WATER, LOW_WATER)

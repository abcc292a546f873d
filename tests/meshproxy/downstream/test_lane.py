"""A peer's lane: leads to one place, and passes on what is no request."""

from typing import Any

import pytest

from meshproxy.codec.segments import END, HEARD, WITHDRAWN, header, segment
from meshproxy.downstream.http1 import FIRST_TIMEOUT, LINGER_TIMEOUT
from meshproxy.downstream.lane import LaneConnection
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected

PLACE = segment(b"10.0.0.5:5672")


class Scene:
    """A connection that was accepted; its relay is a recorder."""

    def __init__(self, *, guesses: bool = False) -> None:
        self.loop = FakeLoop()
        self.owner = Recorder()
        self.relay = Recorder()
        self.begun = 0
        self.lane = LaneConnection(
            self.loop.as_loop, self.owner, self._begin, 5672, guesses=guesses
        )
        self.transport: FakeTransport = connected(self.lane, tls=True)
        self.transport.socket = FakeSocket()

    def _begin(self, downstream: Any) -> Any:
        assert downstream is self.lane
        self.begun += 1
        return self.relay

    def say(self, data: bytes) -> None:
        arrive(self.lane, data)

    def sent(self) -> bytes:
        sent, self.transport.sent = self.transport.sent, b""
        return sent


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_it_is_a_connection(scene: Scene) -> None:
    """It begins with the first word; accepted is said when the app is there; bytes and ends pass."""
    assert scene.lane.deadline == scene.loop.now + FIRST_TIMEOUT
    scene.say(PLACE)
    assert scene.relay.words == ["begin"]
    assert scene.sent() == b""
    scene.lane.established()
    scene.lane.send_data(b"answer")
    scene.lane.send_end()
    assert scene.sent() == segment(b"accepted") + segment(b"answer") + END
    scene.say(HEARD + END)
    assert scene.relay.words == ["begin", "on_downstream_end"]
    assert scene.sent() == HEARD
    assert scene.transport.state == "closing"
    scene.lane.connection_lost(None)
    assert scene.owner.heard == [("closed", scene.lane)]
    assert scene.lane.exchange is None


def test_data_are_passed_on(scene: Scene) -> None:
    """As they come, before the app is there and after."""
    heard: list[bytes] = []
    setattr(scene.relay, "on_downstream_data", lambda data: heard.append(bytes(data)))  # noqa: B010
    scene.say(PLACE + header(10) + b"01234")
    scene.say(b"56789")
    assert b"".join(heard) == b"0123456789"


@pytest.mark.parametrize("place", [b"10.0.0.5:22", b"5672", b"x"])
def test_it_leads_to_one_place_alone(scene: Scene, place: bytes) -> None:
    """Whoever asks for another one is refused, and counted; and has some time to read that."""
    scene.say(segment(place) + segment(b"data"))
    assert scene.begun == 0
    assert scene.owner.heard == [("malformed", "misdirected")]
    assert scene.sent() == segment(b"misdirected")
    assert scene.transport.state == "open"
    assert scene.lane.deadline == scene.loop.now + LINGER_TIMEOUT
    scene.lane.expire()
    assert scene.transport.state == "aborted"


def test_a_refusal_says_why(scene: Scene) -> None:
    """What still comes is dropped."""
    scene.say(PLACE)
    scene.lane.refuse("connect-failed")
    assert scene.sent() == segment(b"connect-failed")
    scene.say(segment(b"late") + END)
    scene.lane.connection_lost(None)
    assert scene.relay.words == ["begin"]
    assert scene.owner.words == ["closed"]


@pytest.mark.parametrize(
    "request_line",
    [b"GET /admin HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\nBREW  /x HTTP/1.0"],
)
@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
def test_requests_do_not_come_this_way(request_line: bytes, size: int) -> None:
    """Where nobody said that a port is opaque, the app hears nothing of what no policy has seen."""
    scene = Scene(guesses=True)
    scene.say(PLACE)
    for start in range(0, len(request_line), size):
        scene.say(segment(request_line[start : start + size]))
    assert scene.relay.words == ["begin", "on_downstream_reset"]
    assert scene.owner.heard[0] == ("malformed", "misdirected")
    assert scene.transport.state == "aborted"


def test_what_is_no_request_passes() -> None:
    """All of it, as soon as that is certain; and what ends before is none."""
    scene = Scene(guesses=True)
    scene.say(PLACE + segment(b"EH"))
    assert scene.relay.words == ["begin"]
    scene.say(segment(b"LO mail\r\n"))
    assert scene.relay.heard[1:] == [("on_downstream_data", b"EHLO mail\r\n")]
    other = Scene(guesses=True)
    other.say(PLACE + segment(b"GE") + END)
    assert other.relay.heard[1:] == [("on_downstream_data", b"GE"), ("on_downstream_end",)]


def test_to_a_server_that_has_spoken_first_everything_passes() -> None:
    """No server of HTTP does: half a line may be the answer that it waits for."""
    scene = Scene(guesses=True)
    scene.say(PLACE + segment(b"hello"))
    scene.lane.established()
    scene.lane.send_data(b"220 at your service\r\n")
    assert scene.relay.heard[1:] == [("on_downstream_data", b"hello")]


@pytest.mark.parametrize("said", [PLACE, PLACE + segment(b"x"), PLACE + END])
def test_a_lost_lane_is_a_reset(scene: Scene, said: bytes) -> None:
    """Never an end, as long as ours has not been said."""
    scene.say(said)
    scene.lane.connection_lost(None)
    assert scene.relay.words[-1] == "on_downstream_reset"


def test_nothing_is_known_before_the_first_word(scene: Scene) -> None:
    """So nobody has to be told when it goes; who never says it is cut."""
    scene.lane.expire()
    assert scene.transport.state == "aborted"
    scene.lane.connection_lost(None)
    assert scene.relay.words == []
    assert scene.owner.words == ["closed"]


def test_the_apps_reset_is_told(scene: Scene) -> None:
    """And the relay, which knows it, hears nothing."""
    scene.say(PLACE)
    scene.lane.reset()
    assert scene.transport.state == "aborted"
    scene.lane.connection_lost(None)
    assert scene.relay.words == ["begin"]


def test_a_withdrawal_is_passed_on(scene: Scene) -> None:
    """The app sees a connection that was closed, and no reset."""
    scene.say(PLACE + WITHDRAWN)
    assert scene.relay.words == ["begin", "withdraw"]
    assert scene.transport.state == "closing"
    scene.lane.connection_lost(None)
    assert scene.relay.words == ["begin", "withdraw"]


def test_nonsense_ends_it(scene: Scene) -> None:
    """And is counted."""
    scene.say(PLACE + END + END)
    assert scene.owner.heard == [("malformed", "malformed-request")]
    assert scene.relay.words[-1] == "on_downstream_reset"


def test_pace_is_passed_on(scene: Scene) -> None:
    """Who does not read stops who sends."""
    scene.lane.pause_writing()
    scene.lane.resume_writing()
    scene.say(PLACE)
    scene.lane.pause_writing()
    scene.lane.resume_writing()
    assert scene.relay.words == ["begin", "on_downstream_blocked", "on_downstream_writable"]


def test_draining_leaves_it_alone(scene: Scene) -> None:
    """Only its two ends know when it is done."""
    scene.say(PLACE)
    scene.lane.drain()
    assert scene.transport.state == "open"

"""A lane to a peer: carries one relay, and tells it all that the peer says."""

import ssl
from typing import Any

import pytest

from meshproxy.codec.segments import END, HEARD, WITHDRAWN, segment
from meshproxy.contract.resources import EndpointSpec
from meshproxy.policies.flow_sizes import Flow, FlowSizes
from meshproxy.upstream.lane import LaneConnection, authority_of
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, FakeSocket, FakeTransport, arrive, connected

ACCEPTED = segment(b"accepted")


class FakeRelay(Recorder):
    """
    Attributes:
        bytes: What came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = b""

    def on_upstream_data(self, data: memoryview) -> None:
        self.bytes += data


class Scene:
    """A connection that stands and has been lent."""

    def __init__(self) -> None:
        self.owner = Recorder()
        self.relay = FakeRelay()
        self.sizes = FlowSizes()
        self.lane = LaneConnection(
            FakeLoop().as_loop, self.owner, b"10.0.0.5:5672", Flow(self.sizes)
        )
        self.transport: FakeTransport = connected(self.lane, tls=True)
        self.transport.socket = FakeSocket()
        assert self.lane.usable
        self.lane.lend(self.relay)

    def say(self, data: bytes) -> None:
        arrive(self.lane, data)

    def lose(self, error: Exception | None = None) -> list[Any]:
        """Return what the relay has heard once the connection is lost."""
        self.lane.connection_lost(error)
        return self.relay.heard[1:]

    def sent(self) -> bytes:
        sent, self.transport.sent = self.transport.sent, b""
        return sent


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_data_go_with_the_first_word(scene: Scene) -> None:
    """Before the peer has said anything; each half ends on its own."""
    assert scene.relay.heard == [("on_upstream_ready", scene.lane)]
    scene.lane.send_data(b"early")
    assert scene.sent() == segment(b"10.0.0.5:5672") + segment(b"early")
    scene.say(ACCEPTED + segment(b"bye") + END)
    assert scene.relay.words[1:] == ["on_upstream_connected", "on_upstream_end"]
    assert scene.relay.bytes == b"bye"
    scene.lane.send_end()
    assert scene.sent() == HEARD + END
    scene.say(HEARD)
    assert scene.transport.state == "closing"
    assert scene.lose()[2:] == []
    assert scene.owner.heard == [("lost", scene.lane)]
    assert not scene.lane.usable


def test_our_end_may_arrive_before_the_app_is_there(scene: Scene) -> None:
    """A client that has said all at once: the peer acknowledges that, and answers later."""
    scene.lane.send_data(b"all")
    scene.lane.send_end()
    scene.say(HEARD)
    assert scene.relay.words == ["on_upstream_ready"]
    scene.say(ACCEPTED + segment(b"answer") + END)
    assert scene.relay.words[1:] == ["on_upstream_connected", "on_upstream_end"]
    assert scene.transport.state == "closing"


def test_what_it_carried_is_learned(scene: Scene) -> None:
    """Both directions, when it has ended; not where nothing came about."""
    scene.say(ACCEPTED + segment(b"x" * 50))
    scene.lane.send_data(b"y" * 25)
    scene.lose()
    assert scene.sizes.mean == 75
    other = Scene()
    other.lose()
    other.sizes.observe(10)
    assert other.sizes.mean == 10


@pytest.mark.parametrize(
    ("word", "code"), [(b"connect-failed", "connect-failed"), (b"made-up", "stream-refused")]
)
def test_a_refusal_says_why(scene: Scene, word: bytes, code: str) -> None:
    """Nobody has heard what was sent; the lane is given up."""
    scene.say(segment(word))
    assert scene.relay.heard[1:] == [("on_upstream_failed", code)]
    assert scene.transport.state == "aborted"
    assert scene.lose() == [("on_upstream_failed", code)]


@pytest.mark.parametrize(
    ("said", "error", "code"),
    [
        (b"", None, "upstream-closed"),
        (ACCEPTED, None, "upstream-closed"),
        (ACCEPTED + segment(b"half"), OSError("reset"), "upstream-reset"),
        (ACCEPTED + END, None, "upstream-closed"),
    ],
)
def test_what_breaks_off_is_a_reset(
    scene: Scene, said: bytes, error: Exception | None, code: str
) -> None:
    """However TLS itself has ended."""
    scene.say(said)
    assert scene.lose(error)[-1] == ("on_upstream_reset", code)


def test_a_peer_that_does_not_believe_us(scene: Scene) -> None:
    """With TLS 1.3 that comes in place of the first bytes: it has read nothing."""
    error = ssl.SSLError(1, "alert")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    assert scene.lose(error) == [("on_upstream_reset", "handshake-failed")]


@pytest.mark.parametrize(
    "said", [END, ACCEPTED + END + END, ACCEPTED + WITHDRAWN, ACCEPTED + HEARD]
)
def test_nonsense_is_a_reset(scene: Scene, said: bytes) -> None:
    """There is no telling what was meant."""
    scene.say(said)
    assert scene.relay.heard[-1] == ("on_upstream_reset", "upstream-protocol-error")
    assert scene.transport.state == "aborted"


def test_who_takes_leave_hears_nothing_more(scene: Scene) -> None:
    """By a reset or quietly."""
    scene.lane.reset()
    assert scene.transport.state == "aborted"
    assert scene.lose() == []
    other = Scene()
    other.sent()
    other.lane.withdraw()
    assert other.sent() == WITHDRAWN
    assert other.transport.state == "closing"
    other.say(ACCEPTED)
    assert other.lose() == []


def test_pace_is_passed_on(scene: Scene) -> None:
    """Who does not read stops who sends."""
    scene.lane.pause_writing()
    assert scene.lane.blocked
    scene.lane.resume_writing()
    assert scene.relay.words[1:] == ["on_upstream_blocked", "on_upstream_writable"]


def test_growing_old_ends_nothing(scene: Scene) -> None:
    """What runs on it goes on to its end."""
    scene.lane.retire()
    assert scene.transport.state == "open"


def test_an_address_of_version_6_is_written_as_one() -> None:
    """In brackets (RFC 3986 section 3.2.2)."""
    assert authority_of(EndpointSpec(address="::1", port=1)) == b"[::1]:1"
    assert authority_of(EndpointSpec(address="10.0.0.5", port=1)) == b"10.0.0.5:1"

"""
Floods: peers that keep us busy with what serves no request (docs of each: NVD).

Whatever the frame, the peer gets GOAWAY(ENHANCE_YOUR_CALM) after a bounded amount of work, the
connection closes, and what a well-behaved client does in bulk is none of it.
"""

import struct
from collections.abc import Callable

import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame, PriorityFrame

from meshproxy.codec.budget import PEER, STRANGER
from meshproxy.message import CHUNKED, ResponseHead, field
from tests.helpers.http2 import GET, POST, Heard, of
from tests.meshproxy.downstream.test_http2 import Scene

ENHANCE_YOUR_CALM = 11

Flood = Callable[[Scene, int], bytes]


def pings(scene: Scene, number: int) -> bytes:
    """CVE-2019-9512."""
    return scene.client.ping()


def settings(scene: Scene, number: int) -> bytes:
    """CVE-2019-9515."""
    return scene.client.settings(s4=65535 + number % 2)


def window_updates(scene: Scene, number: int) -> bytes:
    return scene.client.window(0, 1)


def empty_data(scene: Scene, number: int) -> bytes:
    """CVE-2019-9518."""
    opened = scene.client.headers(1, POST, end=False) if number == 0 else b""
    return opened + scene.client.data(1, b"")


def rapid_reset(scene: Scene, number: int) -> bytes:
    """CVE-2023-44487."""
    stream = 2 * number + 1
    return scene.client.headers(stream, GET) + scene.client.reset(stream)


def made_you_reset_by_length(scene: Scene, number: int) -> bytes:
    """CVE-2025-8671: a body that is longer than announced makes *us* reset."""
    stream = 2 * number + 1
    head = scene.client.headers(stream, [*POST, ("content-length", "1")], end=False)
    return head + scene.client.data(stream, b"abc", end=True)


def made_you_reset_by_trailers(scene: Scene, number: int) -> bytes:
    """CVE-2025-8671: trailers that do not end the stream do so, too."""
    stream = 2 * number + 1
    head = scene.client.headers(stream, POST, end=False)
    return head + scene.client.headers(stream, [("a", "b")], end=False)


def malformed_heads(scene: Scene, number: int) -> bytes:
    """Streams that never become requests."""
    return scene.client.headers(2 * number + 1, [*GET, ("Upper", "case")])


FLOODS: list[Flood] = [
    pings, settings, window_updates, empty_data, rapid_reset, made_you_reset_by_length,
    made_you_reset_by_trailers, malformed_heads,
]  # fmt: skip


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">LBL", len(payload) << 8 | kind, flags, stream) + payload


def on_open_stream(frame: bytes) -> Flood:
    """Return a flood of one frame on stream 1, which a first request has opened."""

    def flood(scene: Scene, number: int) -> bytes:
        return (scene.client.headers(1, POST, end=False) if number == 0 else b"") + frame

    return flood


# What costs us less than that, and serves nobody either: the library counts some of it.
IDLE_TALK: dict[str, Flood] = {
    "answers to PINGs that nobody sent": lambda scene, number: raw(6, 1, 0, b"12345678"),
    "acknowledgements of SETTINGS that nobody sent": lambda scene, number: raw(4, 1, 0),
    "empty SETTINGS": lambda scene, number: raw(4, 0, 0),
    "SETTINGS that nobody knows": lambda scene, number: raw(4, 0, 0, b"\0\x99\0\0\0\1" * 100),
    "tables that grow and shrink": lambda scene, number: scene.client.settings(s1=number % 2 * 4096),
    "DATA that is all padding": on_open_stream(raw(0, 8, 1, b"\x03\0\0\0")),
    "WINDOW_UPDATE of a stream": on_open_stream(raw(8, 0, 1, b"\0\0\0\1")),
    "frames that nobody knows": lambda scene, number: raw(0xFE, 0, 0, b"12345678"),
    "frames that nobody knows, of a stream": on_open_stream(raw(0xFE, 0, 1)),
    "PRIORITY_UPDATE": lambda scene, number: raw(16, 0, 0, struct.pack(">L", 2 * number + 1) + b"u=1"),
    "ALTSVC, which is for clients": lambda scene, number: raw(10, 0, 0, b"\0\0"),
    "ORIGIN, which is for clients": lambda scene, number: raw(12, 0, 0),
}  # fmt: skip


def sweep(scene: Scene, flood: Flood, most: int, at_once: int) -> tuple[int, list[Heard]]:
    """Send until the connection closes; return how many were sent and what came back."""
    heard: list[Heard] = []
    for start in range(0, most, at_once):
        batch = b"".join(flood(scene, number) for number in range(start, start + at_once))
        scene.arrive(batch)
        heard += scene.hear()
        if scene.transport.state != "open":
            return start + at_once, heard
    return most, heard


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
@pytest.mark.parametrize("at_once", [1, 50])
def test_a_stranger_is_stopped(flood: Flood, at_once: int) -> None:
    """After little more than its budget, whether it comes in many reads or in few."""
    scene = Scene(STRANGER)
    sent, heard = sweep(scene, flood, 3000, at_once)
    burst = STRANGER.control[0] if flood in FLOODS[:4] else STRANGER.torn[0]
    assert sent <= burst * 1.1 + 100
    assert scene.transport.state == "closing"
    [goaway] = of(heard, "GoAway")
    assert goaway.frame.error_code == ENHANCE_YOUR_CALM
    scene.connection.connection_lost(None)
    assert "connection-abused" in scene.listener.refused
    assert len(scene.exchanges) <= STRANGER.torn[0] + at_once
    assert all(e.words[-1] == "on_request_reset" for e in scene.exchanges)


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_peer_is_stopped_too(flood: Flood) -> None:
    """Its budget is larger, but it is one."""
    scene = Scene(PEER)
    sent, _ = sweep(scene, flood, 20_000, 250)
    assert sent <= PEER.torn[0] * 1.1 + 250
    assert scene.transport.state == "closing"


@pytest.mark.parametrize("talk", IDLE_TALK)
def test_idle_talk_has_an_end(talk: str) -> None:
    """After some ten thousand frames, and what is answered is no more than was said."""
    scene = Scene(STRANGER)
    sent, heard = sweep(scene, IDLE_TALK[talk], 20_000, 50)
    assert sent < 20_000
    assert len(heard) <= sent
    assert scene.transport.state != "open"


def test_what_crosses_a_reset_is_neither_kept_nor_answered() -> None:
    """Frames of a stream that has ended: RFC 9113 section 5.1 has them ignored, and that is all."""
    scene = Scene(STRANGER)
    client = scene.client
    scene.arrive(client.headers(1, POST, end=False) + client.reset(1))
    scene.hear()
    for frame in (raw(0, 0, 1), client.window(1, 1), client.reset(1)):
        scene.arrive(frame * 1000)
    assert scene.hear() == []
    assert scene.exchanges[0].words == ["on_request_head", "on_request_reset"]


def test_a_table_as_large_as_a_client_likes() -> None:
    """Whatever it allows, our side remembers no more than the 4,096 bytes of RFC 9113."""
    scene = Scene(STRANGER)
    decoder = scene.client._decoder
    decoder.max_allowed_table_size = 1 << 30
    scene.arrive(scene.client.settings(s1=1 << 30))
    for number in range(50):
        scene.arrive(scene.client.headers(2 * number + 1, GET))
        answer = ResponseHead(200, [field(b"X-%d" % number, b"v" * 900)], 0)
        scene.streams[-1].send_head(answer)
        scene.streams[-1].send_end(None)
        scene.hear()
    assert len(scene.exchanges) == 50
    assert 0 < decoder.header_table._current_size <= 4096


def test_all_in_one_read() -> None:
    """As many rapid resets as fit into one read reach no more exchanges than the budget admits."""
    scene = Scene(STRANGER)
    scene.arrive(b"".join(rapid_reset(scene, number) for number in range(3000)))
    assert len(scene.exchanges) <= STRANGER.torn[0] + 1
    scene.hear()
    assert scene.transport.state == "closing"


def test_a_wave_of_cancelled_calls_between_sidecars_is_no_flood() -> None:
    """A thousand timeouts at once must not take down the connection that everybody shares."""
    scene = Scene(PEER)
    for number in range(1000):
        scene.arrive(rapid_reset(scene, number))
    scene.hear()
    scene.arrive(scene.client.headers(3001, GET))
    assert scene.exchanges[-1].words == ["on_request_head"]
    assert scene.transport.state == "open"


def test_bulk_is_no_flood() -> None:
    """Many window updates that answer much data, and pings along with requests, are normal."""
    scene = Scene(STRANGER)
    client = scene.client
    for number in range(3000):
        stream = 2 * number + 1
        scene.arrive(client.headers(stream, GET))
        scene.streams[-1].send_head(ResponseHead(200, [], CHUNKED))
        scene.streams[-1].send_data(b"x" * 100)
        scene.streams[-1].send_end(None)
        scene.hear()
        scene.arrive(client.window(0, 100) + client.ping())
    assert scene.transport.state == "open"


def test_continuations_without_end() -> None:
    """CVE-2024-27316 and others: a header block that never ends is not collected for ever."""
    scene = Scene(PEER)
    scene.arrive(HeadersFrame(1, b"").serialize())
    for _ in range(100):
        scene.arrive(ContinuationFrame(1, b"").serialize())
        scene.hear()
    assert scene.transport.state == "closing"
    assert scene.exchanges == []


def test_a_header_bomb_is_not_unpacked() -> None:
    """CVE-2016-1544: one byte refers to four thousand; the connection is given up early."""
    scene = Scene(PEER)
    client = scene.client
    scene.arrive(client.headers(1, [*GET, ("x", "y" * 4000)]))
    scene.arrive(client.headers(3, [*GET, *[("x", "y" * 4000)] * 1000]))
    scene.hear()
    assert all(len(e.words) <= 2 for e in scene.exchanges)
    assert len(scene.exchanges) == 1


def test_priorities_cost_nothing() -> None:
    """CVE-2019-9513: PRIORITY is parsed and forgotten (RFC 9113 section 5.3.2)."""
    scene = Scene(STRANGER)
    frame = PriorityFrame(1, depends_on=0).serialize()
    for _ in range(100):
        scene.arrive(frame * 100)
    scene.arrive(scene.client.headers(20001, GET))
    assert len(scene.exchanges) == 1
    assert scene.hear() == []

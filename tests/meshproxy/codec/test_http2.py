"""Two sessions, one of each role, joined by bytes; and one of them against another library."""

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec import MalformedError, http2
from meshproxy.codec.heads import read_request_head
from meshproxy.codec.http2 import (
    CANCEL,
    HELD_LIMIT,
    INTERNAL_ERROR,
    STRANGER,
    STREAM_WINDOW,
    ClientSession,
    ServerSession,
)
from meshproxy.codec.http2_heads import HEADER_LIST_LIMIT
from meshproxy.codec.limits import LIMITS
from meshproxy.message import CHUNKED, Fields, RequestHead, ResponseHead, field
from tests.helpers.http2 import GET, Wire, of


class Stream:
    """Hears one stream, as either kind of sink."""

    def __init__(self, stream_id: int = 0, method: bytes = b"GET") -> None:
        self.id = stream_id
        self.method = method
        self.finished = False
        self.heard: list[tuple[Any, ...]] = []

    def _hear(self, *word: Any) -> None:
        if word[0] == "data" and self.heard and self.heard[-1][0] == "data":
            self.heard[-1] = ("data", self.heard[-1][1] + word[1])
        else:
            self.heard.append(word)

    @property
    def words(self) -> list[str]:
        return [word[0] for word in self.heard]

    def on_request_head(self, head: RequestHead) -> None:
        self._hear("head", head)
        if head.length is None:  # the whole request: no end follows
            self._hear("end", None)

    def on_response_head(self, head: ResponseHead) -> None:
        self._hear("head", head)

    def on_response_informational(self, head: ResponseHead) -> None:
        self._hear("informational", head.status)

    def _data(self, data: bytes, last: bool = False) -> None:
        self._hear("data", data)
        if last:
            self._hear("end", None)

    def _end(self, trailers: Fields | None) -> None:
        self._hear("end", trailers)

    def _malformed(self, error: MalformedError) -> None:
        self._hear("malformed", error.code)

    on_request_data = on_response_data = _data
    on_request_end = on_response_end = _end
    on_request_malformed = on_response_malformed = _malformed

    def on_closed(self, code: int) -> None:
        self._hear("closed", code)

    def on_lost(self, code: str) -> None:
        self._hear("lost", code)


class Joined:
    """
    A client and a server.

    Attributes:
        streams: The server's, by number.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.left = 0
        self.client = ClientSession(self._going_away)
        self.server = ServerSession(self._open, STRANGER)
        self.turn()

    def _open(self, stream_id: int) -> Stream:
        return self.streams.setdefault(stream_id, Stream(stream_id))

    def _going_away(self) -> None:
        self.left += 1

    def turn(self) -> None:
        """Carry bytes to and fro until nobody has anything to say."""
        while True:
            there = self.client.data_to_send()
            if there:
                self.server.feed(there, 0.0)
            back = self.server.data_to_send()
            if back:
                self.client.feed(back, 0.0)
            if not there and not back:
                return

    def ask(self, method: bytes = b"GET", length: int | None = None) -> Stream:
        stream = Stream(method=method)
        head = RequestHead(method, b"catalog", b"/", [], length)
        stream.id = self.client.send_head(stream, head, ended=not length)
        return stream

    def answer(self, stream_id: int, body: bytes = b"ok") -> None:
        self.streams[stream_id].finished = True
        self.server.send_head(stream_id, ResponseHead(200, [], len(body)), ended=False)
        self.server.send_data(stream_id, body)
        self.server.send_end(stream_id, None)


def test_a_request_and_its_answer() -> None:
    """Heads, bodies and trailers in both directions, and at last both ends know it is over."""
    joined = Joined()
    stream = joined.ask(b"POST", CHUNKED)
    joined.client.send_data(stream.id, b"abc")
    joined.client.send_end(stream.id, [field(b"X-Sum", b"3")])
    joined.turn()
    served = joined.streams[stream.id]
    assert served.words == ["head", "data", "end"]
    assert served.heard[1:] == [("data", b"abc"), ("end", [field(b"X-Sum", b"3")])]

    joined.server.send_informational(stream.id, ResponseHead(103, []))
    joined.server.send_head(stream.id, ResponseHead(200, [], CHUNKED), ended=False)
    joined.server.send_data(stream.id, b"defg")
    joined.server.send_end(stream.id, [field(b"Grpc-Status", b"0")])
    joined.turn()
    assert stream.words == ["informational", "head", "data", "end", "closed"]
    assert stream.heard[2:] == [
        ("data", b"defg"),
        ("end", [field(b"Grpc-Status", b"0")]),
        ("closed", 0),
    ]
    assert served.heard[-1] == ("closed", 0)
    assert (joined.client.streams, joined.server.streams) == ({}, {})


def test_answers_without_a_body() -> None:
    """HEAD, 204 and an empty 200 are one frame; their lengths are what HTTP/1.1 needs."""
    joined = Joined()
    for method, head, length in (
        (b"HEAD", ResponseHead(200, [], 7), 7),
        (b"GET", ResponseHead(204, []), None),
        (b"GET", ResponseHead(200, [], 0), 0),
    ):
        stream = joined.ask(method)
        joined.turn()
        joined.server.send_head(stream.id, head, ended=True)
        joined.turn()
        assert stream.words == ["head", "end", "closed"]
        assert stream.heard[0][1].length == length


def test_received_data_is_credited_only_when_it_was_taken() -> None:
    """A reader that takes nothing gets one window and no more, and a neighbour notices nothing."""
    joined = Joined()
    slow, quick = joined.ask(b"POST", CHUNKED), joined.ask(b"POST", CHUNKED)
    for stream in (slow, quick):
        joined.client.send_data(stream.id, b"x" * 4 * STREAM_WINDOW)
    joined.turn()
    assert len(joined.streams[slow.id].heard[-1][1]) == STREAM_WINDOW
    assert joined.client.queued(slow.id) == 3 * STREAM_WINDOW

    taken = 0
    while (arrived := len(joined.streams[quick.id].heard[-1][1])) > taken:
        joined.server.acknowledge(quick.id, arrived - taken)
        taken = arrived
        joined.turn()
    assert taken == 4 * STREAM_WINDOW
    assert len(joined.streams[slow.id].heard[-1][1]) == STREAM_WINDOW


def test_what_streams_leave_over_is_credited_to_the_connection() -> None:
    """However many small bodies have come, they do not use up the window that all streams share."""
    engine = _Engine()
    session: Any = http2.Session(cast("Any", engine), STRANGER)
    for stream_id in range(1, 2001, 2):
        session.settle(stream_id, 700)
    credited = sum(amount for amount, _ in engine.credited)
    assert 700_000 - http2.SMALL_WINDOW < credited <= 700_000
    assert 0 < len(engine.credited) <= 700_000 / http2.SMALL_WINDOW
    assert all(stream_id for _, stream_id in engine.credited)


class _Engine:
    """As much of ngh2 as this takes."""

    def __init__(self) -> None:
        self.credited: list[tuple[int, int]] = []

    def acknowledge_received_data(self, amount: int, stream_id: int) -> None:
        self.credited.append((amount, stream_id))


def test_what_is_held_for_all_slow_readers_is_bounded() -> None:
    """Above the limit every window shrinks; when readers have caught up, it grows again."""
    joined = Joined()
    most = HELD_LIMIT // STREAM_WINDOW
    streams = [joined.ask(b"POST", CHUNKED) for _ in range(most + 8)]
    for stream in streams:
        joined.client.send_data(stream.id, b"x" * STREAM_WINDOW)
        joined.turn()
        held = joined.streams[stream.id].heard[-1]
        if held[0] == "data":
            joined.server.hold(len(held[1]))
            joined.turn()
    assert HELD_LIMIT < joined.server.held < HELD_LIMIT + 2 * STREAM_WINDOW
    for stream in streams:
        taken = 0
        while joined.streams[stream.id].heard[-1][0] == "data":
            amount = len(joined.streams[stream.id].heard[-1][1]) - taken
            if not amount:
                break
            if taken:
                joined.server.hold(amount)
            joined.server.release(stream.id, amount)
            taken += amount
            joined.turn()
    late = joined.ask(b"POST", CHUNKED)
    joined.client.send_data(late.id, b"x" * STREAM_WINDOW)
    joined.turn()
    assert joined.server.held <= 0
    assert len(joined.streams[late.id].heard[-1][1]) == STREAM_WINDOW


def test_the_peer_decides_how_many_streams() -> None:
    """Before its word 100, then what it says; the session never queues a request."""
    client = ClientSession(lambda: None)
    assert client.room == 100
    server = Wire()
    server.hear(client.data_to_send())
    client.feed(server.settings(s3=2), 0.0)
    assert client.greeted
    heads = [RequestHead(b"GET", b"a", b"/", []) for _ in range(2)]
    for head in heads:
        client.send_head(Stream(), head, ended=True)
    assert client.room == 0
    assert len(of(server.hear(client.data_to_send()), "Headers")) == 2
    client.feed(server.headers(1, [(":status", "204")]), 0.0)
    assert client.room == 1
    client.feed(server.settings(s3=0), 0.0)
    assert client.room == -1


@pytest.mark.parametrize("limit", [None, 1000])
def test_a_head_the_peer_would_not_take_is_not_sent(limit: int | None) -> None:
    """It would cost the connection, and every other request on it."""
    client = ClientSession(lambda: None)
    peer = Wire()
    if limit is not None:
        client.feed(peer.settings(s6=limit), 0.0)
    large = [field(b"x", b"y" * (limit or HEADER_LIST_LIMIT))]
    with pytest.raises(MalformedError) as raised:
        client.send_head(Stream(), RequestHead(b"GET", b"a", b"/", large), ended=True)
    assert raised.value.code == "fields-too-large"
    assert client.streams == {}
    assert client.send_head(Stream(), RequestHead(b"GET", b"a", b"/", []), ended=True) == 1


def test_shutdown_in_two_steps() -> None:
    """First the client learns that there is no more, then, a round trip later, what was too late."""
    joined = Joined()
    early = joined.ask()
    joined.turn()
    late = joined.ask()  # on its way when the server begins to go
    on_its_way = joined.client.data_to_send()
    joined.server.announce_shutdown()
    joined.client.feed(joined.server.data_to_send(), 0.0)
    assert (joined.left, joined.client.room) == (1, 0)
    with pytest.raises(MalformedError, match="stream-refused"):
        joined.ask()
    joined.server.feed(on_its_way, 0.0)
    assert late.id in joined.streams, "it was on its way, so it is served"
    joined.turn()
    for stream in (early, late):
        joined.answer(stream.id)
    joined.turn()
    assert early.words == late.words == ["head", "data", "end", "closed"]
    assert joined.client.closed
    assert joined.server.closed


def test_streams_above_the_last_one_are_known_not_to_have_been_processed() -> None:
    """And so are those that the server resets with REFUSED_STREAM."""
    client = ClientSession(lambda: None)
    server = Wire()
    streams = [Stream() for _ in range(3)]
    for stream in streams:
        stream.id = client.send_head(stream, RequestHead(b"POST", b"a", b"/", []), ended=True)
    client.data_to_send()
    client.feed(server.settings() + server.reset(1, 7) + server.goaway(3), 0.0)
    assert [stream.heard for stream in streams] == [[("closed", 7)], [], [("closed", 7)]]


def test_a_reset_reaches_the_other_end() -> None:
    """In both directions, with its code."""
    joined = Joined()
    first, second = joined.ask(b"POST", CHUNKED), joined.ask()
    joined.turn()
    joined.client.reset(first.id, CANCEL)
    joined.server.reset(second.id, INTERNAL_ERROR)
    joined.turn()
    assert joined.streams[first.id].heard[-1] == ("closed", CANCEL)
    assert second.heard == [("closed", INTERNAL_ERROR)]
    # Whoever still speaks on such a stream speaks to nobody, and is not punished for it.
    joined.server.send_data(first.id, b"x")
    joined.server.send_head(first.id, ResponseHead(200, []), ended=True)
    joined.client.send_end(first.id, None)
    joined.client.acknowledge(second.id, 1_000_000)
    joined.turn()
    assert not joined.client.closed
    assert not joined.server.closed


def test_a_body_of_another_length_than_announced_is_no_response() -> None:
    """The client hears of a tear, never of an end."""
    client = ClientSession(lambda: None)
    server = Wire()
    stream = Stream()
    stream.id = client.send_head(stream, RequestHead(b"GET", b"a", b"/", []), ended=True)
    client.data_to_send()
    head = server.headers(1, [(":status", "200"), ("content-length", "3")], end=False)
    client.feed(server.settings() + head + server.data(1, b"ab", end=True), 0.0)
    client.data_to_send()
    assert "end" not in stream.words
    assert stream.heard[-1] == ("closed", http2.PROTOCOL_ERROR)


def test_a_malformed_response_is_the_endpoints_fault() -> None:
    """Whatever is wrong with it."""
    client = ClientSession(lambda: None)
    server = Wire()
    stream = Stream()
    stream.id = client.send_head(stream, RequestHead(b"GET", b"a", b"/", []), ended=True)
    client.data_to_send()
    head = server.headers(1, [(":status", "200"), ("x_mesh_a", "b")], end=False)
    client.feed(server.settings() + head, 0.0)
    assert stream.heard == [("malformed", "upstream-protocol-error")]


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\0" * 100, b"\xff" * 100]
)
def test_garbage_closes(garbage: bytes) -> None:
    """A session never raises, and after a fatal error it says nothing more."""
    server = ServerSession(lambda _: Stream())
    server.feed(garbage, 0.0)
    server.data_to_send()
    assert server.closed
    server.feed(garbage, 0.0)
    server.send_data(1, b"x")
    server.close()
    assert server.data_to_send() == b""


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_split_of_the_bytes_says_the_same(data: st.DataObject) -> None:
    """Frames do not end where reads end."""
    client = Wire()
    said = b"".join(
        [
            client.hello(s4=70000),
            client.headers(1, [*GET, ("cookie", "a=b"), ("cookie", "c=d")], end=False),
            client.data(1, b"abc"),
            client.headers(3, GET),
            client.ping(),
            client.data(1, b"def"),
            client.headers(1, [("x-sum", "6")]),
        ]
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=8)))
    streams: dict[int, Stream] = {}
    server = ServerSession(lambda number: streams.setdefault(number, Stream(number)))
    for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
        server.feed(said[start:end], 0.0)
    assert streams[1].words == ["head", "data", "end"]
    assert streams[1].heard[0][1].fields == [field(b"Cookie", b"a=b; c=d")]
    assert streams[1].heard[1:] == [("data", b"abcdef"), ("end", [field(b"X-Sum", b"6")])]
    assert streams[3].words == ["head", "end"]
    assert not server.closed


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_whatever_follows_the_preface_nothing_is_raised(noise: bytes) -> None:
    """Noise is an error of the peer's, never one of ours."""
    client = Wire()
    server = ServerSession(Stream)
    server.feed(client.hello() + client.headers(1, GET, end=False) + noise, 0.0)
    server.data_to_send()
    server.data_to_send()


_TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcxyzABC", min_size=1, max_size=12)
_VALUE = st.text([chr(n) for n in (9, *range(32, 127), *range(128, 256))], max_size=30).map(
    str.strip
)
_PATH = st.text("!$&'(*)+,-./0129:;=@AZ[]_az|~", max_size=30)
_QUERY = st.text([chr(n) for n in range(33, 127) if chr(n) != "#"], max_size=30)


@given(_TOKEN, _PATH, _QUERY, st.lists(st.tuples(_TOKEN, _VALUE), max_size=8))
@settings(max_examples=300, deadline=None)
def test_whatever_http1_admits_comes_through(
    method: str, path: str, query: str, pairs: list[tuple[str, str]]
) -> None:
    """A request that one sidecar has accepted is never torn by the rules of the next one."""
    lines = [f"{name}: {value}".encode("latin-1") for name, value in pairs]
    try:
        start = f"{method} /{path}?{query} HTTP/1.1".encode()
        head, _, _ = read_request_head([start, b"Host: catalog:80", *lines], LIMITS)
    except MalformedError:
        return
    if head.method == b"CONNECT":
        return
    joined = Joined()
    stream = Stream(method=head.method)
    stream.id = joined.client.send_head(stream, head, ended=not head.length)
    if head.length:
        joined.client.send_data(stream.id, b"x" * min(head.length, 10))
    joined.turn()
    seen = joined.streams[stream.id].heard[0][1]
    assert (seen.method, seen.path, seen.authority) == (head.method, head.path, head.authority)
    cookies = [field for field in head.fields if field[0] == b"cookie"]
    if len(cookies) < 2:
        assert [field[:2] for field in seen.fields] == [field[:2] for field in head.fields]
    if not head.length or head.length <= 10:
        assert "malformed" not in stream.words
        assert ("closed", 1) not in joined.streams[stream.id].heard

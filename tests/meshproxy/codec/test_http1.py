"""
The readers and writers of HTTP/1.1, as a whole.

Three questions: do they say the same however the bytes are cut, do they refuse what has been used
for smuggling, and does h11, written by other people, agree with them?
"""

from collections.abc import Callable
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.codec.http1 import (
    LIMITS,
    RequestReader,
    encode_chunk,
    encode_informational,
    encode_last_chunk,
    encode_request_head,
    encode_response_head,
    encode_switch,
)
from meshproxy.message import CHUNKED, TUNNEL, RequestHead, ResponseHead, field

from .recorder import (
    Recorder,
    Requests,
    Responses,
    Word,
    byte_by_byte,
    cut,
    read_request,
    read_response,
    say_request,
    say_response,
)

GET = b"GET /a?b HTTP/1.1\r\nHost: svc:80\r\nAccept: */*\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: svc\r\nContent-Length: 5\r\n\r\nhello"
PUT = (
    b"PUT /c HTTP/1.1\r\nHost: svc\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
)
EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
LAST = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
REQUESTS = [GET, POST, PUT, EXPECTING, b"\r\n" + GET, LAST]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
RESPONSES = [OK, CHUNKS, CONTINUED, EMPTY, OLD]


# Any cut gives the same words


@pytest.mark.parametrize("message", REQUESTS)
@pytest.mark.parametrize("behind", [b"", GET, PUT + GET, b"\r\n", b"GET / HTTP/9", b"\x00"])
def test_requests_byte_by_byte(message: bytes, behind: bytes) -> None:
    """Whole or byte by byte, alone or with more behind: the same words."""
    whole = read_request(message + behind)
    assert whole == Requests().feed(byte_by_byte(message + behind))
    assert whole[0][0] == "head"


@given(
    st.lists(st.sampled_from([*REQUESTS, b"junk", b"\r\n", b"\n", b"GET / HTTP/1.1\r\n: a\r\n\r\n"]), max_size=6),
    st.lists(st.integers(0, 600), max_size=12),
)  # fmt: skip
def test_requests_cut_anywhere(messages: list[bytes], places: list[int]) -> None:
    """Pipelined requests, good and bad, cut at any places: the same words."""
    data = b"".join(messages)
    assert read_request(data) == Requests().feed(cut(data, places))


@pytest.mark.parametrize("message", RESPONSES)
@pytest.mark.parametrize("behind", [b"", b"x", OK])
@pytest.mark.parametrize("eof", [False, True])
def test_responses_byte_by_byte(message: bytes, behind: bytes, eof: bool) -> None:
    """Whole or byte by byte, alone or with more behind: the same words."""
    whole = read_response(message + behind, eof=eof)
    assert whole == Responses().feed(byte_by_byte(message + behind), eof=eof)
    assert "head" in [word[0] for word in whole]


@given(
    st.sampled_from(RESPONSES),
    st.binary(max_size=3),
    st.lists(st.integers(0, 200), max_size=12),
    st.booleans(),
)
def test_responses_cut_anywhere(
    message: bytes, behind: bytes, places: list[int], eof: bool
) -> None:
    """Any response, anything behind it, any cut: the same words."""
    data = message + behind
    assert read_response(data, eof=eof) == Responses().feed(cut(data, places), eof=eof)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_noise_is_never_raised(noise: bytes, places: list[int]) -> None:
    """Whatever arrives, the readers speak through their sinks, and say one `malformed` at most."""
    for words in (Requests().feed(cut(noise, places)), Responses().feed(cut(noise, places))):
        names = [word[0] for word in words]
        assert "malformed" not in names[:-1]


@given(st.sampled_from(REQUESTS), st.integers(0, 200), st.integers(0, 255), st.lists(st.integers(0, 200), max_size=4))  # fmt: skip
def test_one_wrong_byte(message: bytes, place: int, byte: int, places: list[int]) -> None:
    """A request with one byte changed is read the same way whatever the cut."""
    place %= len(message)
    data = message[:place] + bytes([byte]) + message[place + 1 :] + GET
    assert read_request(data) == Requests().feed(cut(data, places))


# What is refused


def get(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""])


BAD = "malformed-request"

# hazards: two framings, odd codings, odd lengths, versions, line ends, Host, targets, names.
REFUSED: list[tuple[bytes, str]] = [
    # CL.TE, TE.CL, TE.TE
    (get(b"Content-Length: 5", b"Transfer-Encoding: chunked"), BAD),
    (get(b"Transfer-Encoding: chunked", b"Content-Length: 0"), BAD),
    (get(b"Transfer-Encoding: xchunked"), BAD),
    (get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), BAD),
    (get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), BAD),
    (get(b"Transfer-Encoding: identity, chunked"), BAD),
    (get(b"Transfer-Encoding: chunked, identity"), BAD),
    (get(b"Transfer-Encoding: \x0bchunked"), BAD),
    (get(b"Transfer-Encoding:\r\n chunked"), BAD),
    (get(b"Transfer-Encoding : chunked"), BAD),
    (get(b" Transfer-Encoding: chunked"), BAD),
    (get(b"Transfer-Encoding\x00: chunked"), BAD),
    (get(b"Transfer_Encoding: chunked"), BAD),
    (get(b"X: x\nTransfer-Encoding: chunked"), BAD),
    (get(b"X: x\rTransfer-Encoding: chunked"), BAD),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    # Lengths
    *((get(b"Content-Length: " + value), BAD) for value in (
        b"", b"+5", b"-5", b"5_0", b"0x5", b"5,6", b"5 5", b"\xd9\xa5", b"18446744073709551621", b"9" * 5000,
    )),
    (get(b"Content-Length: 5", b"Content-Length: 6"), BAD),
    (get(b"Content-Length: 5", b"Content-Length: 05"), BAD),
    (get(b"Content-Length : 5"), BAD),
    (get(b"Content_Length: 5"), BAD),
    (get(b"Content-Length\r\n: 5"), BAD),
    # Lines
    (b"GET / HTTP/1.1\nHost: a\n\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BAD),
    (b"GET / HTTP/1.1\rHost: a\r\r", BAD),
    (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BAD),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n\r\n", BAD),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
    (get(b"A: b", b" c"), BAD),
    (get(b"A: b", b"\tc"), BAD),
    (get(b"A: b\x00c"), BAD),
    (get(b"A: b\x01c"), BAD),
    (get(b"A: b\x7f"), BAD),
    (get(b"A b: c"), BAD),
    (get(b": c"), BAD),
    (get(b"A"), BAD),
    (get(b"A\xc3\xa9: c"), BAD),
    (get(b"A(b): c"), BAD),
    # Request line
    (b"GET /\r\nHost: a\r\n\r\n", BAD),
    (b"GET\r\nHost: a\r\n\r\n", BAD),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD),
    (b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", BAD),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    *((b"GET / " + version + b"\r\nHost: a\r\n\r\n", BAD) for version in (
        b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/1", b"HTTP/11", b"http/1.1", b"HTTP/1.1a", b"HTTPS/1.1",
        b"HTTP/ 1.1", b"HTTP/+1.1", b"HTTP/1,1", b"SIP/2.0", b"HTTP/10.0",
    )),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version-not-supported"),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", "version-not-supported"),
    # Host
    (get(b"Host: a"), BAD),
    (get(b"host: b"), BAD),
    *((b"GET / HTTP/1.1\r\nHost:" + host + b"\r\n\r\n", BAD) for host in (
        b"", b" ", b"a b", b"a, b", b"a/b", b"u@a", b"a:x", b"a:", b"a:99999", b"[::1", b"a?b", b"a#b",
    )),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", BAD),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD),
    (b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", BAD),
    # The rest
    (get(b"Expect: 200-ok"), BAD),
    (get(b"Expect: 100-continue", b"Expect: 100-continue"), BAD),
    (get(b"Connection: a b"), BAD),
    (get(b"x_mesh_peer: a"), BAD),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n", BAD),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", BAD),
    # Too much
    (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "target-too-long"),
    (b"GET /" + b"a" * 70000, "target-too-long"),
    (get(b"A: " + b"a" * 66000), "fields-too-large"),
    (get(*[b"A: b"] * 128), "fields-too-large"),
    # Two mistakes: a bare line end is the worse one, also when all arrives at once
    (get(*[b"A: b"] * 128, b"A: b\nc"), BAD),
    (b"GET / HTTP/2.0\r\nHost: a\nb\r\n\r\n", BAD),
    (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\nHost: a\n\r\n\r\n", BAD),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), REFUSED, ids=lambda value: repr(value)[:60])
def test_refused_requests(data: bytes, code: str) -> None:
    """Refused once, with the right code, and the sink hears no head: nothing is ever forwarded."""
    # What follows would be the smuggled request.
    data += b"0\r\n\r\n" + GET
    assert read_request(data) == [("malformed", code)]
    pieces = byte_by_byte(data) if len(data) < 1000 else cut(data, range(0, len(data), 1000))
    assert Requests().feed(pieces) == [("malformed", code)]


def test_long_numbers_are_refused_before_they_are_converted() -> None:
    """Converting takes quadratic time, and raises something else above 4,300 digits."""
    heard = read_request(get(b"Content-Length: " + b"9" * 5000))
    assert heard == [("malformed", "malformed-request")]


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\nA B: c\r\n\r\n",
    ],
)
def test_a_broken_body_never_ends(body: bytes) -> None:
    """After a head there is no way back; but the sink does not hear an end."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    words = [word for word in read_request(head + body + GET) if word[0] != "data"]
    assert [words[0][0], *words[1:]] == ["head", ("malformed", BAD)]


REFUSED_RESPONSES = [
    b"junk\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 999 A\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000, b"HTTP/1.1 102 Processing\r\n\r\n" * 40,
]  # fmt: skip


@pytest.mark.parametrize("data", REFUSED_RESPONSES, ids=lambda value: repr(value)[:60])
def test_refused_responses(data: bytes) -> None:
    """Servers are held to the same rules; the client hears one thing, a protocol error."""
    words = [word for word in read_response(data + OK) if word[0] != "informational"]
    assert words == [("malformed", "upstream-protocol-error")]


# One message at a time


def test_pipelined_requests_wait_for_their_turn() -> None:
    """The second request is held back until the first has its answer."""
    sink = Requests(answer=False)
    sink.feed([POST + GET[:10]])
    assert sink.names() == ["head", "data", "end"]
    assert (len(sink.reader.held), sink.reader.in_head) == (10, False)
    sink.reader.next()
    assert (len(sink.reader.held), sink.reader.in_head) == (10, True)
    sink.feed([GET[10:]])
    assert sink.names()[3:] == ["head", "end"]
    assert sink.reader.held == b""


def test_many_pipelined_requests_need_no_stack() -> None:
    """A sink that answers within `on_request_end` does not recurse, however many are pipelined."""
    sink = Requests()
    sink.feed([GET * 5000])
    assert len(sink.words) == 10000


def test_after_the_last_request_nothing_is_read() -> None:
    """Connection: close, HTTP/1.0: what comes behind is not a request."""
    for last in (LAST, get(b"Connection: close")):
        sink = Requests()
        sink.feed([last + GET])
        assert sink.names() == ["head", "end"]
        assert not sink.reader.keep_alive
        assert sink.reader.held == b""


def test_version_and_persistence_are_known_with_the_head() -> None:
    """Who answers within `on_request_head` must know how."""
    sink = Requests()
    seen: list[tuple[bool, bool]] = []

    def react(name: str) -> None:
        if name == "head":
            seen.append((sink.reader.http10, sink.reader.keep_alive))
        elif name == "end":
            sink.reader.next()

    sink.react = react
    sink.feed([GET + LAST])
    assert seen == [(False, True), (True, False)]


@pytest.mark.parametrize("message", [POST, PUT])
@pytest.mark.parametrize("word", ["head", "data", "end"])
@pytest.mark.parametrize("pieces", [lambda data: [data], byte_by_byte])
def test_nothing_is_said_after_close(
    message: bytes, word: str, pieces: Callable[[bytes], list[bytes]]
) -> None:
    """A sink may close within any callback, and has peace from then on."""
    sink = Requests(answer=False)
    sink.react = lambda name: sink.reader.close() if name == word else None
    sink.feed(pieces(message + GET + b"\x00"))
    names = sink.names()
    heard = _without_end_of_data(names, word)
    assert word not in heard[:-1]
    assert heard[-1] == word
    sink.reader.next()
    assert sink.names() == names


@pytest.mark.parametrize("message", RESPONSES)
@pytest.mark.parametrize("word", ["informational", "head", "data", "end"])
def test_no_response_is_heard_after_close(message: bytes, word: str) -> None:
    """A sink may close within any callback, and has peace from then on."""
    sink = Responses()
    sink.react = lambda name: sink.reader.close() if name == word else None
    sink.feed([message + b"x"], eof=True)
    names = _without_end_of_data(sink.names(), word)
    assert word not in names[:-1]
    if word in names:
        assert names[-1] == word


def _without_end_of_data(names: list[str], word: str) -> list[str]:
    """Leave out an end that was said together with the last data."""
    return names[:-1] if word == "data" and names[-2:] == ["data", "end"] else names


def test_close_within_malformed_is_harmless() -> None:
    """The reader is deaf before it complains."""
    sink = Requests(answer=False)
    sink.react = lambda _name: sink.reader.close()
    assert sink.feed([b"junk\r\n\r\n", GET]) == [("malformed", BAD)]


# Responses belong to requests


def test_a_connection_is_reused() -> None:
    """expect() from within the end of the last response pairs the next one rightly."""
    sink = Responses()
    sink.react = lambda name: sink.reader.expect(b"HEAD") if name == "end" else None
    sink.feed([OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
    assert sink.names() == ["head", "data", "end", "head", "end"]
    assert sink.words[3] == ("head", 200, b"OK", (), 9, None)
    assert sink.reader.keep_alive
    assert sink.reader.untouched


def test_bytes_that_nobody_asked_for() -> None:
    """Between responses any byte is a protocol error, and poisons nothing."""
    sink = Responses()
    sink.feed([OK])
    assert (sink.reader.idle, sink.reader.keep_alive) == (True, True)
    sink.feed([b"H"])
    assert sink.words[-1] == ("malformed", "upstream-protocol-error")
    assert (sink.reader.idle, sink.reader.keep_alive) == (False, False)
    sink.reader.expect(b"GET")
    sink.feed([OK])
    assert sink.names().count("head") == 1


def test_surplus_is_known_before_the_end_is_heard() -> None:
    """A pool that asks within `on_response_end` is told not to reuse the connection."""
    sink = Responses()
    seen: list[tuple[str, bool, bool]] = []
    sink.react = lambda name: seen.append((name, sink.reader.keep_alive, sink.reader.idle))
    sink.feed([OK + OK])
    assert seen[-2:] == [("end", False, False), ("malformed", False, False)]


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"", ("malformed", "upstream-closed")),
        (OK[:20], ("malformed", "upstream-closed")),
        (OK[:-1], ("malformed", "upstream-closed")),
        (CHUNKS[:-1], ("malformed", "upstream-closed")),
        (CONTINUED[:30], ("malformed", "upstream-closed")),
        (OLD, ("end", None)),
        (OK, ("end", None)),
    ],
)
def test_the_end_of_the_connection(data: bytes, outcome: Word) -> None:
    """Only a body that has no other end ends with the connection; all else is incomplete."""
    assert read_response(data, eof=True)[-1] == outcome


def test_untouched_until_the_first_byte() -> None:
    """Whether a request can have been read at all decides about repeating it."""
    sink = Responses()
    assert sink.reader.untouched
    sink.feed([b"H"])
    assert not sink.reader.untouched


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_responses_without_a_body_end_at_once(method: bytes, head: bytes) -> None:
    """The end comes with the head; the connection is free."""
    sink = Responses(method)
    sink.feed([head])
    assert sink.names() == ["head", "end"]
    assert sink.reader.idle


# Writing


TOKEN = st.text("abcXYZ-019", min_size=1, max_size=12).map(lambda text: b"Q" + text.encode())
VALUE = st.text('abc ,;="/\xe9', max_size=20).map(lambda text: text.strip().encode("latin-1"))
FIELDS = st.lists(st.builds(field, TOKEN, VALUE), max_size=6)
PATH = st.text("abc/%2e?&=;~", max_size=20).map(lambda text: b"/?" + text.encode())
LENGTH = st.one_of(st.none(), st.integers(0, 2**63 - 1), st.just(CHUNKED))
REQUEST = st.builds(
    RequestHead,
    st.sampled_from([b"GET", b"POST", b"FROB"]),
    st.sampled_from([b"a", b"a.b:80", b"[::1]:8080"]),
    PATH,
    FIELDS,
    LENGTH,
)
STATUS = st.sampled_from([200, 201, 299, 301, 404, 503, 599])
REASON = st.sampled_from([b"", b"OK", b"Not Found", b"Something else"])
RESPONSE = st.builds(ResponseHead, STATUS, FIELDS, LENGTH.filter(lambda n: n is not None), REASON)


@given(REQUEST, st.booleans())
def test_requests_round_trip(head: RequestHead, expecting: bool) -> None:
    """What we write, we read as the same head."""
    head.expect_continue = expecting and bool(head.length)
    for trailers in (False, True):
        words = read_request(encode_request_head(head, trailers=trailers))
        assert words[0] == say_request(head)


@given(RESPONSE, st.booleans())
def test_responses_round_trip(head: ResponseHead, close: bool) -> None:
    """What we write, we read as the same head and the same persistence."""
    sink = Responses()
    sink.feed([encode_response_head(head, close=close)])
    assert sink.words[0][2] == head.reason or not head.reason
    head.reason = sink.words[0][2]
    assert sink.words[0] == ("head", *say_response(head))
    assert sink.reader.keep_alive is not close


def test_nothing_from_outside_is_written_as_ours() -> None:
    """Mesh fields and what was hop by hop end with the hop they came from; Upgrade is said anew."""
    sink = Requests(answer=False)
    heads: list[RequestHead] = []
    sink.on_request_head = heads.append  # type: ignore[method-assign, assignment]
    sink.feed([get(b"X-Mesh-Peer: a", b"Connection: upgrade, x-own", b"Upgrade: b", b"X-Own: c", b"TE: d", b"Keep: e")])  # fmt: skip
    assert encode_request_head(heads[0]) == (
        b"GET / HTTP/1.1\r\nHost: a\r\nKeep: e\r\nConnection: Upgrade\r\nUpgrade: b\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("length", "close", "http10", "lines"),
    [
        (5, False, False, b"Content-Length: 5\r\n"),
        (5, True, False, b"Content-Length: 5\r\nConnection: close\r\n"),
        (5, False, True, b"Content-Length: 5\r\nConnection: keep-alive\r\n"),
        (CHUNKED, False, False, b"Transfer-Encoding: chunked\r\n"),
        (CHUNKED, True, True, b"Connection: close\r\n"),
        (CHUNKED, False, True, b"Connection: close\r\n"),
        (None, False, False, b""),
    ],
)
def test_response_framing(length: int | None, close: bool, http10: bool, lines: bytes) -> None:
    """HTTP/1.0 has no chunks and must be told that the connection stays."""
    head = ResponseHead(200, [], length)
    assert encode_response_head(head, close=close, http10=http10) == b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"  # fmt: skip


def test_connect_and_asterisk_are_written_in_their_forms() -> None:
    """CONNECT names the authority, OPTIONS may name the server."""
    connect = RequestHead(b"CONNECT", b"a:1", b"", [], TUNNEL)
    assert encode_request_head(connect) == b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
    assert encode_request_head(RequestHead(b"OPTIONS", b"a", b"*", [])).startswith(b"OPTIONS * HTTP/1.1\r\n")  # fmt: skip


def test_informational_heads_are_bare() -> None:
    """A 1xx has fields and nothing about framing or the connection."""
    head = ResponseHead(103, [field(b"Link", b"a")])
    assert encode_informational(head) == b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"


# h11 as the referee

# Where we differ from h11 on purpose.  Everything else that one accepts and the other does not is
# a mistake of one of us.
STRICTER_THAN_H11 = {
    "Content-Length and Transfer-Encoding together": get(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    "Transfer-Encoding in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare LF as a line end": b"GET / HTTP/1.1\nHost: a\n\n",
    "line folding": get(b"A: b", b" c"),
    "Host is not an authority": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown expectation": get(b"Expect: 200-ok"),
    "underscore twin": get(b"Content_Length: 5"),
    "CONNECT with a body": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    "a major version that neither speaks": b"GET / HTTP/3.0\r\nHost: a\r\n\r\n",
}  # fmt: skip


def h11_reads(data: bytes) -> list[Word] | None:
    """Return what h11 makes of one request, in our words as far as it has them; None: refused."""
    referee = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    referee.receive_data(data)
    words: list[Word] = []
    body = b""
    try:
        while True:
            event: Any = referee.next_event()
            if isinstance(event, h11.Request):
                words.append((bytes(event.method), bytes(event.target)))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return [*words, (body,)]
            else:
                return words
    except h11.RemoteProtocolError:
        return None


@pytest.mark.parametrize("data", STRICTER_THAN_H11.values(), ids=STRICTER_THAN_H11.keys())
def test_where_we_are_stricter_than_h11(data: bytes) -> None:
    """Each difference is one of those that we chose."""
    assert h11_reads(data) is not None
    assert read_request(data)[-1][0] == "malformed"


def test_where_h11_is_stricter() -> None:
    """An empty line before a request, white space before a chunk extension: legal, says RFC 9112."""
    for odd, plain in ((b"\r\n" + GET, GET), (PUT.replace(b"3;a", b"3\t;a"), PUT)):
        assert h11_reads(odd) is None
        assert read_request(odd) == read_request(plain)


@pytest.mark.parametrize("data", [GET, POST, PUT, EXPECTING, LAST])
def test_h11_reads_what_we_read(data: bytes) -> None:
    """A good request has the same method, target and body for both."""
    words = read_request(data)
    body = b"".join(word[1] for word in words if word[0] == "data")
    assert h11_reads(data) == [(words[0][1], words[0][4]), (body,)]


@given(st.sampled_from([GET, POST, PUT]), st.integers(0, 200), st.binary(min_size=1, max_size=2), st.booleans())  # fmt: skip
def test_what_we_accept_h11_accepts(message: bytes, place: int, noise: bytes, insert: bool) -> None:
    """Damage a request anywhere: if we still take it whole, h11 takes it with the same meaning."""
    place %= len(message)
    data = message[:place] + noise + message[place + (0 if insert else len(noise)) :]
    sink = Requests(answer=False)
    sink.feed([data])
    chosen = data.startswith(b"\r\n") or b"\t;" in data or b" ;" in data
    if chosen or sink.names()[-1:] != ["end"]:
        return
    verdict = h11_reads(data)
    assert verdict is not None
    assert verdict[-1] == (sink.body(),)
    assert verdict[0][0] == sink.words[0][1]


@given(REQUEST.filter(lambda head: head.length in (None, CHUNKED)), st.lists(st.binary(max_size=9), max_size=4))  # fmt: skip
def test_h11_reads_the_requests_we_write(head: RequestHead, chunks: list[bytes]) -> None:
    """h11 finds in our bytes the head and the body that went in."""
    body = chunks if head.length == CHUNKED else []
    wire = encode_request_head(head) + b"".join(map(encode_chunk, body))
    if body or head.length == CHUNKED:
        wire += encode_last_chunk([field(b"X-Sum", b"1")])
    assert h11_reads(wire) == [(head.method, head.path), (b"".join(body),)]


@given(RESPONSE, st.lists(st.binary(max_size=9), max_size=4))
def test_h11_reads_the_responses_we_write(head: ResponseHead, chunks: list[bytes]) -> None:
    """h11 finds in our bytes the status, the fields and the body that went in."""
    body = b"".join(chunks)
    if head.length == CHUNKED:
        wire = encode_response_head(head, close=False)
        wire += b"".join(map(encode_chunk, chunks)) + encode_last_chunk(None)
    else:
        head.length = len(body)
        wire = encode_response_head(head, close=False) + body
    referee = h11.Connection(h11.CLIENT)
    referee.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    referee.send(h11.EndOfMessage())
    referee.receive_data(wire)
    response: Any = referee.next_event()
    assert response.status_code == head.status
    ours = [(name, value) for name, value, _ in head.fields]
    assert [tuple(pair) for pair in response.headers][: len(ours)] == ours
    received = b""
    while isinstance(event := referee.next_event(), h11.Data):
        received += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert received == body


# What it costs


def test_memory_of_an_unfinished_head_is_bounded() -> None:
    """A client that never ends its head is refused at the limit."""
    sink = Recorder()
    reader = RequestReader(sink)
    reader.feed(b"GET / HTTP/1.1\r\n")
    while not sink.words:
        reader.feed(b"A: " + b"b" * 1000 + b"\r\n")
        assert len(reader.held) <= LIMITS.head + 2000
    assert sink.words == [("malformed", "fields-too-large")]
    assert reader.held == b""


def test_whole_pieces_are_handed_on_as_they_are() -> None:
    """A body that arrives in pieces is not copied on its way."""
    sink = Requests()
    received: list[bytes] = []
    sink.on_request_data = lambda data, last=False: received.append(data)  # type: ignore[method-assign]
    piece = bytes(65536)
    sink.feed([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 131072\r\n\r\n", piece, piece])
    assert received[0] is piece
    assert received[1] is piece


# Switching protocols ------------------------------------------------------------------------------

ASK = get(b"Connection: Upgrade", b"Upgrade: own")
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n"
_PLACES = st.lists(st.integers(0, 200), max_size=6)


@given(st.sampled_from([ASK, CONNECT]), st.binary(max_size=60), _PLACES)
@settings(deadline=None)
def test_behind_a_request_to_switch_nothing_is_read(
    ask: bytes, early: bytes, places: list[int]
) -> None:
    """However the bytes come: they are held, and handed over as they are."""
    sink = Requests()
    sink.feed(cut(ask + early, places))
    assert sink.names() == ["head"]
    assert sink.reader.held == early
    assert not sink.reader.in_head
    assert sink.reader.surrender() == early
    sink.feed([GET])
    assert sink.names() == ["head"]


def test_a_request_whose_switch_was_declined_has_ended() -> None:
    """What comes next is the next request."""
    sink = Requests()
    sink.feed([ASK])
    sink.reader.decline()
    sink.reader.next()
    sink.feed([GET])
    assert sink.names() == ["head", "head", "end"]
    sink.reader.decline()  # nothing to decline
    assert sink.names() == ["head", "head", "end"]


@given(st.binary(max_size=60), _PLACES)
@settings(deadline=None)
def test_what_follows_a_switch_is_handed_over(rest: bytes, places: list[int]) -> None:
    """In the moment in which its head is known: not a byte of it is read as HTTP."""
    sink = Responses()
    taken = b""

    def take(name: str) -> None:
        nonlocal taken
        assert name == "head"
        taken = sink.reader.surrender()

    sink.react = take
    pieces = cut(SWITCHED + rest, places)
    for piece in pieces:
        if sink.words:
            taken += piece  # no business of the reader's any more
        else:
            sink.feed([piece])
    assert taken == rest
    assert sink.words[0][1:] == (101, b"Switching Protocols", (), TUNNEL, b"own")
    assert not sink.reader.keep_alive


def test_without_anybody_to_take_it_a_tunnel_ends_with_the_connection() -> None:
    """As with a body that the end of the connection ends: the end is no error."""
    assert Responses(b"CONNECT").feed([b"HTTP/1.1 200 OK\r\n\r\nab", b"c"], eof=True)[1:] == [
        ("data", b"abc"), ("end", None),
    ]  # fmt: skip


@pytest.mark.parametrize(("upgrade", "lines"), [(b"own", b"Connection: Upgrade\r\nUpgrade: own\r\n"), (None, b"")])  # fmt: skip
def test_the_head_that_opens_a_tunnel(upgrade: bytes | None, lines: bytes) -> None:
    """No length, no coding; Upgrade where there is one (RFC 9110 sections 7.8 and 9.3.6)."""
    head = ResponseHead(101 if upgrade else 200, [field(b"a", b"b")], TUNNEL)
    head.upgrade = upgrade
    start = b"101 Switching Protocols" if upgrade else b"200 OK"
    assert encode_switch(head) == b"HTTP/1.1 " + start + b"\r\na: b\r\n" + lines + b"\r\n"

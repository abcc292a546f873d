"""
What a client makes us do is in proportion to what it does itself: in work and in memory.

The work is counted in calls, which are the same on every machine, and compared with that of the same
number of bytes in ordinary requests; the memory is what is held at the worst moment.
"""

import sys
import tracemalloc
from typing import Any

import pytest

from tests.meshproxy.codec.recorder import Requests, byte_by_byte

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

# CVE-2020-8659 (Envoy), CVE-2025-69229 (aiohttp), CVE-2026-47774: much of what is small.
ATTACKS: dict[str, list[bytes]] = {
    "chunks of one byte": [CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n"],
    "chunks of one byte, byte by byte": byte_by_byte(CHUNKED + b"1\r\nx\r\n" * 2_000),
    "chunks with many zeros": [CHUNKED + b"00000001\r\nx\r\n" * 5_000],
    "chunks with extensions": [CHUNKED + b"1;a=b\r\nx\r\n" * 3_000],
    "a head byte by byte": byte_by_byte(HEAD + b"X: " + b"a" * 8_000 + b"\r\n\r\n"),
    "fields of one letter": [(HEAD + b"A:b\r\n" * 126 + b"\r\n") * 50],
    "a cookie of crumbs": [HEAD + b"Cookie: " + b"a=b;" * 15_000 + b"\r\n\r\n"],
    "an empty list": [HEAD + b"Connection: " + b"," * 60_000 + b"\r\n\r\n"],
    "a list of options": [HEAD + b"Connection: " + b"a," * 30_000 + b"b\r\n\r\n"],
    "a list of other options": [HEAD + b"Connection: " + b",".join(b"a%d" % n for n in range(9_000)) + b"\r\n\r\n"],
    "a list of lengths": [HEAD + b"Content-Length: " + b"0," * 30_000 + b"0\r\n\r\n"],
    "a list of protocols": [HEAD + b"Connection: upgrade\r\nUpgrade: " + b"a," * 30_000 + b"b\r\n\r\n"],
    "blanks": [HEAD + b"X:" + b" " * 60_000 + b"b\r\n\r\n"],
    "a target of escapes": [b"GET /" + b"%41" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"],
    "fields of one letter and a number": [HEAD + b"".join(b"a%d:b\r\n" % n for n in range(126)) + b"\r\n"],
    "requests in one piece": [(HEAD + b"\r\n") * 2_000],
}  # fmt: skip
ORDINARY = HEAD + b"User-Agent: curl/8\r\nAccept: */*\r\n\r\n"


def calls_of(pieces: list[bytes]) -> int:
    """Return how many functions are called to read these pieces, of Python and of C."""
    requests = Requests()
    count = 0

    def note(_frame: Any, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        requests.feed(pieces)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_work(attack: str) -> None:
    """At most ten times that of the same bytes in requests that are worth it."""
    pieces = ATTACKS[attack]
    size = sum(map(len, pieces))
    copies = size // len(ORDINARY) + 1
    split = byte_by_byte if len(pieces) > 1 else lambda data: [data]
    assert calls_of(pieces) <= 10 * calls_of(split(ORDINARY * copies))


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_memory(attack: str) -> None:
    """What is kept is at most eight times what was sent; what it takes for a moment is bounded, too."""
    pieces = ATTACKS[attack]
    tracemalloc.start()
    try:
        kept = Requests()
        kept.feed(pieces)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.words
    assert held <= 8 * sum(map(len, pieces)) + 65_536
    assert peak <= 4 << 20  # one message at a time, however many connections there are

"""
Mutated bytes: what is nearly right finds more than what is random.

A seed, most of them vectors of `tests/conformance`, is cut, doubled, spliced with another and sprinkled
with the bytes that parsers disagree about.
"""

import functools
import json
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from tests.conformance.vectors import read
from tests.conformance.vectors.frames import PREFACE, Writer

TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b'"', b"\\", b"%", b"\xff", b"\x80", b"0", b"-", b"+",
    b"_", b"0\r\n\r\n", b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"HTTP/1.1",
    b"ffffffffffffffff", b"Connection: upgrade\r\n", b"Host: a\r\n", b"{", b"}", b"[", b"]", b"null", b"1e400", b"\xc3\xa4",
)  # fmt: skip
LARGEST: Final = 4096


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return seeds after a few changes, at places of any kind."""
    place = st.integers(0, LARGEST)
    step = st.tuples(st.integers(0, 4), place, place, st.sampled_from([*TOKENS, *seeds]))
    return st.builds(_change, st.sampled_from(seeds), st.lists(step, min_size=1, max_size=5))


def _change(data: bytes, steps: list[tuple[int, int, int, bytes]]) -> bytes:
    for what, first, second, token in steps:
        a, b = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        if what == 0:
            data = data[:a] + token + data[a:]
        elif what == 1:
            data = data[:a] + data[b:]
        elif what == 2:
            data = data[:a] + token + data[b:]
        elif what == 3:
            data = data[:b] + data[a:b] + data[b:]
        else:
            data = data[:a] + bytes([second & 255]) + data[a + 1 :]
    return data


def requests() -> list[bytes]:
    return [v.send for v in read("http1-requests-*") if len(v.send) < LARGEST]


def responses() -> list[bytes]:
    return [v.answer for v in read("http1-responses") if v.answer and len(v.answer) < LARGEST]


@functools.cache  # Huffman codes take their time
def sessions() -> list[bytes]:
    """Return what a client of HTTP/2 says, from its preface on."""
    return [
        data
        for vector in read("http2-*")
        if vector.kind != "floods"
        and len(data := PREFACE + Writer().write(["SETTINGS"]) + Writer().write(vector.send))
        < LARGEST
    ]


def resources() -> list[bytes]:
    """Return the examples of each kind."""
    folder = Path(__file__).parents[2] / "configs"
    return [d for p in sorted(folder.rglob("*.yaml")) if len(d := p.read_bytes()) < LARGEST]


def documents(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]

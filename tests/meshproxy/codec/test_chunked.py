"""The chunked coding: everything the grammar has, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.chunked import ChunkReader, encode_chunk, encode_last_chunk
from meshproxy.codec.limits import LIMITS
from meshproxy.message import Fields, field

from .recorder import byte_by_byte, cut

Outcome = tuple[bytes, str | None, bool, Fields | None, bytes]


def read(pieces: list[bytes]) -> Outcome:
    """Return data, error code, whether it is done, trailers, and the bytes left over."""
    reader = ChunkReader(LIMITS)
    data, rest = b"", b""
    for index, piece in enumerate(pieces):
        got, rest = reader.read(rest + piece)
        data += got
        if reader.error is not None:
            return data, reader.error.code, False, None, b""
        if reader.done:
            return data, None, True, reader.trailers, rest + b"".join(pieces[index + 1 :])
    return data, None, False, None, rest


@pytest.mark.parametrize(
    ("body", "data", "trailers"),
    [
        (b"0\r\n\r\n", b"", None),
        (b"000\r\n\r\n", b"", None),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", None),
        (b"1\r\na\r\n01\r\nb\r\n0\r\n\r\n", b"ab", None),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", None),
        (b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n" * 5, None),
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x", None),
        (b'1;a="b;\\"c";d\r\nx\r\n0\r\n\r\n', b"x", None),
        (b"1 ; a = b\r\nx\r\n0\r\n\r\n", b"x", None),
        (b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", b"x", [(b"x-sum", b"1", b"X-Sum: 1")]),
        (b"1\r\nx\r\n0\r\nHost: a\r\n\r\n", b"x", None),
    ],
)
def test_bodies(body: bytes, data: bytes, trailers: Fields | None) -> None:
    """Whole, byte by byte, with bytes behind: the same data, trailers and rest."""
    for pieces in ([body], byte_by_byte(body)):
        assert (data, None, True, trailers, b"") == read(pieces)
    for pieces in ([body + b"GET /"], byte_by_byte(body + b"GET /")):
        assert (data, None, True, trailers, b"GET /") == read(pieces)


REFUSED = [
    # Sizes
    b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\nx\r\n", b"0x1\r\nx\r\n", b"1_0\r\n", b"1.0\r\n", b" 1\r\nx\r\n",
    b"1 \r\nx\r\n", b"1\t\r\n", b"1,1\r\n", b"\xd9\xa1\r\n", b"1h\r\n", b"g\r\n", b"8000000000000000\r\n",
    b"ffffffffffffffff\r\n", b"10000000000000000\r\n", b"0" * 17 + b"\r\n", b"f" * 1000,
    # Terminators
    b"5\nhello\n0\n\n", b"5\rhello", b"5\n\r", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n", b"5\r\nhelloX", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\r\n\r\n0\r\n\r\n",
    b"5\r\r\nhello\r\n", b"0\r\n\n", b"0\r\nX", b"0\r\n\rX", b"0\n\n", b"0\r\r\n",
    # Extensions
    b"1;\r\nx\r\n", b"1;;a\r\n", b"1;a=\r\n", b"1;=a\r\n", b"1 a\r\n", b'1;a="\r\n"\r\n', b'1;a="b\r\n',
    b"1;a\nb\r\nx\r\n", b"1;a\rb\r\nx\r\n", b"1;a=b c\r\n", b"1;\x00\r\n", b"1;a=\xe9\r\n", b'1;a="b"c\r\n',
    b"1;" + b"a" * 300 + b"\r\nx\r\n",
    # Trailers
    b"0\r\na b: c\r\n\r\n", b"0\r\n a: b\r\n\r\n", b"0\r\na\r\n\r\n", b"0\r\na: b\nc: d\r\n\r\n",
    b"0\r\na: b\r\n c\r\n\r\n", b"0\r\na: \x00\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_refused_bodies(body: bytes) -> None:
    """Each is refused, and where it comes byte by byte so is it."""
    tail = b"0\r\n\r\n" * 60
    assert read([body + tail])[1] is not None
    assert read(byte_by_byte(body + tail))[1] is not None


@given(st.sampled_from(REFUSED), st.lists(st.integers(0, 40), max_size=6))
def test_refusal_does_not_depend_on_the_cut(body: bytes, places: list[int]) -> None:
    """The data before the mistake, and the code, are the same for any split."""
    assert read([body])[:3] == read(cut(body, places))[:3]


def test_extensions_of_a_body_are_bounded() -> None:
    """Many chunks with a small extension each are still too many extensions."""
    chunk = b"1;" + b"a" * 100 + b"\r\nx\r\n"
    assert read([chunk * 150 + b"0\r\n\r\n"])[1] is None
    assert read([chunk * 200])[1] == "malformed-request"


def test_trailers_are_bounded() -> None:
    """A trailer section beyond the limit is refused, complete or not."""
    line = b"a: " + b"b" * 97 + b"\r\n"
    assert read([b"0\r\n" + line * 100])[1] == "fields-too-large"
    assert read([b"0\r\n" + line * 100 + b"\r\n"])[1] == "fields-too-large"
    assert read([b"0\r\n" + b"a:b\r\n" * 129 + b"\r\n"])[1] == "fields-too-large"


def test_large_data_is_not_copied() -> None:
    """In the middle of a chunk the buffer itself is handed on."""
    reader = ChunkReader(LIMITS)
    reader.read(b"100000\r\n")
    piece = bytes(65536)
    assert reader.read(piece)[0] is piece


@given(
    st.lists(st.binary(max_size=50), max_size=6),
    st.booleans(),
    st.lists(st.integers(0, 300), max_size=8),
)
def test_what_we_write_we_read(chunks: list[bytes], trailer: bool, places: list[int]) -> None:
    """Writer and reader agree, for any chunks, any split."""
    trailers = [field(b"X-Sum", b"1")] if trailer else None
    wire = b"".join(map(encode_chunk, chunks)) + encode_last_chunk(trailers)
    assert (b"".join(chunks), None, True, trailers, b"") == read(cut(wire, places))


def test_no_data_is_no_chunk() -> None:
    """An empty chunk would end the body."""
    assert encode_chunk(b"") == b""

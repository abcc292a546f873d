"""Segments: what was said arrives, in any cuts; and nothing but an end is an end."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.segments import (
    END,
    HEARD,
    LONGEST_WORD,
    WITHDRAWN,
    SegmentReader,
    header,
    segment,
)
from tests.meshproxy.codec.recorder import cut

CUTS = st.lists(st.integers(1, 4000), max_size=40)
WORD = segment(b"10.0.0.5:5672")


class Sink:
    """
    Attributes:
        words: What was heard, data joined.
        closes_at: The call after which it closes its reader.
    """

    def __init__(self, reader: SegmentReader, closes_at: str = "") -> None:
        self.words: list[Any] = []
        self._reader = reader
        self._closes_at = closes_at

    def _hear(self, name: str, said: bytes | None = None) -> None:
        self.words.append(name if said is None else (name, said))
        if name == self._closes_at:
            self._reader.closed = True

    def on_word(self, word: bytes) -> None:
        self._hear("word", word)

    def on_data(self, data: memoryview) -> None:
        if self.words and self.words[-1][0] == "data":
            self.words[-1] = ("data", self.words[-1][1] + bytes(data))
        else:
            self._hear("data", bytes(data))

    def on_end(self) -> None:
        self._hear("end")

    def on_heard(self) -> None:
        self._hear("heard")

    def on_withdrawn(self) -> None:
        self._hear("withdrawn")

    def on_malformed(self) -> None:
        self._hear("malformed")


def read(pieces: list[bytes], closes_at: str = "") -> list[Any]:
    reader = SegmentReader()
    sink = Sink(reader, closes_at)
    for piece in pieces:
        reader.feed(memoryview(piece), sink)
    return sink.words


@given(st.lists(st.binary(min_size=1, max_size=600), max_size=6), CUTS)
def test_whatever_was_said_arrives(said: list[bytes], places: list[int]) -> None:
    """For any segments and any cut of them."""
    wire = WORD + b"".join(map(segment, said)) + END + HEARD
    joined = [("data", b"".join(said))] if said else []
    expected = [("word", b"10.0.0.5:5672"), *joined, "end", "heard"]
    assert read(cut(wire, places)) == expected


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=4), st.floats(0, 1), CUTS)
def test_what_is_cut_off_has_no_end(said: list[bytes], share: float, places: list[int]) -> None:
    """Wherever it stops, what has arrived is the beginning of what was said, and no end is heard."""
    wire = WORD + b"".join(map(segment, said)) + END
    heard = read(cut(wire[: int(share * (len(wire) - 1))], places))
    assert "end" not in heard
    assert "malformed" not in heard
    got = b"".join(word[1] for word in heard if word[0] == "data")
    assert b"".join(said).startswith(got)


@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_read(noise: bytes, places: list[int]) -> None:
    """Nonsense is never more than nonsense, and the same however it is cut."""
    heard = read(cut(noise, places))
    assert heard == read([noise])
    for last in ("malformed", "withdrawn"):
        assert last not in heard[:-1]


@pytest.mark.parametrize(
    "wire",
    [
        END, WITHDRAWN, header(LONGEST_WORD + 1) + b"x",
        WORD + END + END, WORD + END + segment(b"x"), WORD + END + WITHDRAWN,
    ],
    ids=["an end first", "withdrawn first", "a long word", "two ends", "data after it",
         "withdrawn after it"],
)  # fmt: skip
def test_what_makes_no_sense_ends_it(wire: bytes) -> None:
    """And nothing is read behind it."""
    heard = read([wire + segment(b"more")])
    assert heard[-1] == "malformed"
    assert heard.count("malformed") == 1


def test_an_end_may_be_acknowledged_before_ours() -> None:
    """The two directions know nothing of each other."""
    assert read([WORD + HEARD + segment(b"x") + END]) == [
        ("word", b"10.0.0.5:5672"), "heard", ("data", b"x"), "end",
    ]  # fmt: skip
    assert read([HEARD + WORD]) == ["heard", ("word", b"10.0.0.5:5672")]


def test_nothing_was_said() -> None:
    """A withdrawal is the last word."""
    assert read([WORD + WITHDRAWN + segment(b"x")]) == [("word", b"10.0.0.5:5672"), "withdrawn"]


@pytest.mark.parametrize("at", ["word", "data", "end", "heard"])
def test_the_sink_may_close(at: str) -> None:
    """In the middle of what has arrived."""
    heard = read([WORD + segment(b"x") + END + HEARD, HEARD], closes_at=at)
    assert (heard[-1] if at in ("end", "heard") else heard[-1][0]) == at


def test_data_are_views_of_what_was_fed() -> None:
    """Nothing is copied on the way."""

    class Looking(Sink):
        def on_data(self, data: memoryview) -> None:
            assert data.obj is wire

    wire = bytearray(WORD + segment(b"x" * 100))
    reader = SegmentReader()
    reader.feed(memoryview(wire), Looking(reader))


def test_a_segment_of_nothing_would_be_an_end() -> None:
    """So whoever has nothing to say says no header."""
    assert header(0) == END

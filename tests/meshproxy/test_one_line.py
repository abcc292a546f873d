"""What others choose stays on its line."""

import logging
import sys

import pytest

from meshproxy.one_line import OneLineFormatter, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer, 日本", "plain, größer, 日本"),
        ("a\nb\r\x1b[31m", r"a\nb\r\x1b[31m"),
        ("a\u202eb\u2028c\x9b", r"a\u202eb\u2028c\x9b"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    """Letters of all scripts stay; line ends, escapes, C1 and bidirectional controls do not."""
    assert one_line(text) == shown


def test_a_record_cannot_pose_as_two() -> None:
    """A message with a line feed is one line; the traceback of a mistake keeps its lines."""
    try:
        raise ValueError("x")
    except ValueError:
        failure = sys.exc_info()
    make = logging.getLogger("mesh").makeRecord
    plain = make("mesh", logging.INFO, "", 0, "field %s", ("a\nERROR forged",), None)
    assert OneLineFormatter().format(plain).endswith(r"INFO mesh: field a\nERROR forged")
    assert (
        OneLineFormatter("worker 2 ")
        .format(plain)
        .endswith(r"INFO worker 2 mesh: field a\nERROR forged")
    )
    broken = make("mesh", logging.ERROR, "", 0, "failed", (), failure)
    assert "\nTraceback (most recent call last):\n" in OneLineFormatter().format(broken)

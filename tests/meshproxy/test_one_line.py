"""What others choose stays on its line."""

import ast
import functools
import logging
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.one_line import OURS, OneLineFormatter, log_to_standard_error, one_line

ROOT = Path(__file__).parent.parent.parent


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
    """A message with a line feed is one line."""
    make = logging.getLogger("mesh").makeRecord
    plain = make("mesh", logging.INFO, "", 0, "field %s", ("a\nERROR forged",), None)
    assert OneLineFormatter().format(plain).endswith(r"INFO mesh: field a\nERROR forged")
    assert (
        OneLineFormatter("worker 2 ")
        .format(plain)
        .endswith(r"INFO worker 2 mesh: field a\nERROR forged")
    )


def test_a_traceback_cannot_pose_as_records() -> None:
    """It keeps its lines, indented; also those that a peer has got into the exception's message."""
    try:
        raise ValueError("x\n2026-01-01 00:00:00,000 INFO mesh: forged\r\x1b[2J")
    except ValueError:
        failure = sys.exc_info()
    make = logging.getLogger("mesh").makeRecord
    broken = make("mesh", logging.ERROR, "", 0, "failed", (), failure, sinfo="a\nb")
    first, *more = OneLineFormatter().format(broken).split("\n")
    assert first.endswith("ERROR mesh: failed")
    assert more[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in more)


_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ worker 1 [\w.]+: .*")
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


@functools.cache  # and not when the tests are collected, which each of the workers does
def log_calls() -> tuple[tuple[str, ast.Call], ...]:
    """Return every call of a logger in our two packages, and where it is."""
    return tuple(
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for package in ("meshproxy", "control_plane")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _LEVELS
        and re.search(r"\b_?log\b|getLogger|audit_log", ast.unparse(node.func.value))
    )


@functools.cache
def texts() -> tuple[str, ...]:
    return tuple(
        call.args[0].value
        for _, call in log_calls()
        if isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    )


HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="\r\n\x1b[2J\x85\u2028\u202e\0\"'\\% :").map(
        lambda text: f"{text}2026-01-01 00:00:00,000 CRITICAL worker 1 mesh: forged{text}"
    ),
    st.binary().map(lambda data: data.decode("latin-1")),
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
)


def test_the_log_calls_are_found() -> None:
    """Else the next tests would prove nothing."""
    assert len(log_calls()) > 70
    assert len(texts()) > 70


@given(st.deferred(lambda: st.sampled_from(texts())), st.data())
def test_every_log_call_makes_one_line_whatever_it_is_given(text: str, data: st.DataObject) -> None:
    """Each text of ours, with names, paths, SNI, reasons that somebody else has chosen."""
    arguments = tuple(
        data.draw(HOSTILE) if kind in "sr" else data.draw(st.integers(0, 1 << 40))
        for kind in re.findall(r"%[-+ 0#]*[\d.]*([a-z])", text)
    )
    record = logging.getLogger("mesh").makeRecord(
        "mesh.x", logging.INFO, "", 0, text, arguments, None
    )
    line = OneLineFormatter("worker 1 ").format(record)
    assert _RECORD.fullmatch(line)
    assert line.isprintable()
    assert len(line.splitlines()) == 1


def test_no_log_call_is_handed_a_secret() -> None:
    """By the names of what is handed over; a text that was made elsewhere must be one argument."""
    secret = re.compile(r"token$|secret|password|authorization|(^|_)key$|headers|fields|cookie")
    for place, call in log_calls():
        assert not isinstance(call.args[0], ast.JoinedStr), (
            f"{place}: hand values over as arguments"
        )
        for argument in call.args[1:]:
            words = {
                name.lower()
                for node in ast.walk(argument)
                if (name := getattr(node, "attr", getattr(node, "id", None))) is not None
            }
            found = [word for word in words if secret.search(word)]
            assert not found, f"{place} logs {found}"


def test_debug_is_for_our_own_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that logs what it sends would log join tokens and the configuration."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    before = {name: logging.getLogger(name).level for name in OURS}
    try:
        log_to_standard_error("debug")
        assert logging.getLogger("meshproxy.upstream").isEnabledFor(logging.DEBUG)
        assert logging.getLogger("control_plane.discovery").isEnabledFor(logging.DEBUG)
        for library in ("websockets.client", "aiohttp.web", "asyncio"):
            assert not logging.getLogger(library).isEnabledFor(logging.DEBUG)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

import logging

import pytest

from meshproxy.message import RequestHead
from meshproxy.telemetry.denials import KEPT, LINES_PER_SECOND, LONGEST, Denials


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_denial_is_found_by_what_the_caller_was_told() -> None:
    """Its id, or the beginning of it; the newest comes first."""
    denials = Denials(Clock(), lambda: 1_800_000_000.0)
    first = denials.note(
        "spiffe://a/b", method="GET", authority="c", path="/d", policy="x/y", rule="r"
    )
    second = denials.note("")
    [found] = denials.found(first)
    assert (found["source"], found["path"], found["policy"]) == ("spiffe://a/b", "/d", "x/y")
    assert [one["id"] for one in denials.found()] == [second, first]
    assert len(first) == 16


def test_only_the_last_are_kept() -> None:
    """Whoever is denied chooses how often."""
    denials = Denials(Clock(), Clock())
    first = denials.note("x")
    for _ in range(KEPT):
        denials.note("x")
    assert denials.found(first) == []
    assert len(denials.found()) == KEPT


def test_the_log_has_the_rule_but_not_every_line(caplog: pytest.LogCaptureFixture) -> None:
    """A few a second, then how many were left out; and one line each, whatever the path."""
    caplog.set_level(logging.WARNING, "meshproxy.authorization")
    clock = Clock()
    denials = Denials(clock, clock)
    number = denials.note(
        "spiffe://a/b", method="GET", authority="c", path="/\n\x1b[31mx", policy="x/y", rule="r"
    )
    for _ in range(LINES_PER_SECOND + 5):
        denials.note("", reason="the token has expired")
    assert len(caplog.messages) == LINES_PER_SECOND
    assert number in caplog.messages[0]
    assert "rule 'r' of AuthorizationPolicy x/y" in caplog.messages[0]
    assert not {"\n", "\x1b"} & set(caplog.messages[0])
    assert "the token has expired" in caplog.messages[1]
    clock.seconds += 1
    denials.note("")
    assert caplog.messages[-2:][0] == "6 more were denied in the meantime"


def test_long_words_of_a_caller_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand paths of 16 KiB would be 16 MB, of anybody's choice."""
    denials = Denials(lambda: 0.0, lambda: 0.0)
    number = denials.note("", method="M" * 9000, authority="a" * 9000, path="/" + "p" * 16000)
    [found] = denials.found(number)
    assert found["path"] == "/" + "p" * (LONGEST - 1) + "…"
    assert len(found["method"]) == len(found["authority"]) == LONGEST + 1
    assert len(caplog.text) < 4 * LONGEST


def test_what_would_have_been_denied_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With caller and rule, without the query; a few lines a second, which are not those of denials."""
    caplog.set_level(logging.WARNING, "meshproxy.authorization")
    clock = Clock()
    denials = Denials(clock, clock)
    head = RequestHead(b"GET", b"shop", b"/admin\x1b?key=secret", [])
    denials.audit("spiffe://a/b", "x/y", "r", head)
    denials.audit("", "x/y", "0", None)
    of = "AUDIT AuthorizationPolicy x/y"
    assert caplog.messages == [
        f"would be denied: 'GET shop/admin\\x1b' of spiffe://a/b: rule 'r' of {of}",
        f"would be denied: 'connection' of an unknown caller: rule '0' of {of}",
    ]
    for _ in range(LINES_PER_SECOND):
        denials.audit("", "x/y", "r", head)
    assert len(caplog.messages) == LINES_PER_SECOND
    number = denials.note("")
    assert number in caplog.messages[-1]
    clock.seconds += 1
    denials.audit("", "x/y", "r", None)
    assert caplog.messages[-2] == "2 more would have been denied in the meantime"
    assert [one["id"] for one in denials.found()] == [number]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.wire import ContractError
from meshproxy.routing.pattern import Patterns

PLAIN = st.text(st.characters(exclude_characters="*", codec="utf-8"), min_size=1, max_size=8)


@given(PLAIN, PLAIN)
def test_without_a_star_only_the_same_text_matches(pattern: str, text: str) -> None:
    """No character but the star means more than itself: ``a.b`` is not ``axb`` (CVE-2026-39350)."""
    assert Patterns((pattern,)).match(text.encode()) == (pattern == text)


@given(PLAIN, PLAIN)
def test_a_star_stands_for_any_rest(pattern: str, text: str) -> None:
    """At the end, or at the beginning; also for none."""
    raw = text.encode()
    assert Patterns((f"{pattern}*",)).match(raw) == raw.startswith(pattern.encode())
    assert Patterns((f"*{pattern}",)).match(raw) == raw.endswith(pattern.encode())


def test_a_bare_star_wants_something() -> None:
    """``principals: ["*"]`` means anybody who was proved, not nobody."""
    assert Patterns(("*",)).match(b"x")
    assert not Patterns(("*",)).match(b"")
    assert not Patterns(()).match(b"")


@pytest.mark.parametrize("text", ["", "a*b", "**", "*a*", "a**"])
def test_other_stars_are_errors(text: str) -> None:
    """They would be taken for what they are not."""
    with pytest.raises(ContractError, match=r"paths\[1\]: expected a text with at most one '\*'"):
        Patterns(("x", text), "paths")

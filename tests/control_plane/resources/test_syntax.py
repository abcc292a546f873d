"""Each check has a table of what it accepts and what it refuses: an unanchored pattern shows here."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.resources import syntax

Check = Callable[[str], str | None]

ACCEPTED: list[tuple[Check, list[str]]] = [
    (syntax.dns_label, ["a", "1", "a-b", "a" * 63]),
    (syntax.service_name, ["a", "a1", "a-b"]),
    (syntax.dns_name, ["a", "a.b", "1.2", "a-b.c"]),
    (syntax.hostname, ["example.com", "a"]),
    (syntax.port_name, ["http", "h2c-1", "a" * 15]),
    (syntax.label_key, ["app", "example.com/app", "App_1.x"]),
    (syntax.label_value, ["", "v1", "A_b.c-d"]),
    (syntax.header_name, ["X-A", "x_a", "a!#$%&'*+-.^_`|~"]),
    (syntax.header_value, ["", "a b", "\té", "a,b"]),
    (syntax.regular_expression, ["", "a+", "/v[0-9]+/.*", "(?i)a"]),
    (syntax.path, ["/", "/a", "/a/", "/a%20b", "/a:b@c", "/..a", "/a.."]),
]
REFUSED: list[tuple[Check, list[str]]] = [
    (syntax.dns_label, ["", "A", "a.b", "-a", "a-", "a\n", "a" * 64, "ä"]),
    (syntax.service_name, ["1a", "", "a.b", "a\n"]),
    (syntax.dns_name, ["", ".", "a..b", "a.", "A", "a.b\n", "a" * 254]),
    (syntax.hostname, ["*.example.com", "a:80", "127.0.0.1", "::1", ""]),
    (syntax.port_name, ["", "80", "a--b", "-a", "A", "a" * 16, "a\n"]),
    (syntax.label_key, ["", "/app", "a/b/c", "-a", "a\n", "a" * 64, "A.com/app"]),
    (syntax.label_value, ["-a", "a b", "a\n", "a" * 64]),
    (syntax.header_name, ["", "a b", "a:b", ":path", "a\r\n", "ä", "a" * 257]),
    (syntax.header_value, ["a\r\nb", "a\nb", "a\0", "a\n", "\u20ac", "a" * 4097]),
    (syntax.regular_expression, ["(", "(?=a)", r"\1", "a{1000}{1000}", "\ud800", "a" * 1025]),
    (
        syntax.path,
        ["", "a", "/a//b", "/./", "/a/..", "/a/../b", "/a%2fb", "/a#b", "/a b", "/%zz", "/a\n", "/a?b"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("check", "values"), ACCEPTED, ids=lambda v: getattr(v, "__name__", ""))
def test_accepted(check: Check, values: list[str]) -> None:
    """Nothing is wrong with these."""
    assert {value: check(value) for value in values} == dict.fromkeys(values)


@pytest.mark.parametrize(("check", "values"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_refused(check: Check, values: list[str]) -> None:
    """Each of these is refused with a sentence on one line."""
    for value in values:
        message = check(value)
        assert message, f"{check.__name__} accepts {value!r}"
        assert message.isprintable()


@given(st.sampled_from([check for check, _ in ACCEPTED]), st.text())
def test_no_text_breaks_a_check(check: Check, text: str) -> None:
    """A check answers; it never raises."""
    assert check(text) is None or isinstance(check(text), str)

import subprocess
import sys
from typing import Literal

import pytest

from meshproxy.contract.matching import (
    IdentityMatchSpec,
    MatchSpec,
    PathMatchSpec,
    ValueMatchSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import Fields, RequestHead, field
from meshproxy.routing.match import IdentityMatch, Match


def head(path: str = "/", method: bytes = b"GET", *fields: tuple[bytes, bytes]) -> RequestHead:
    made: Fields = [field(name, value) for name, value in fields]
    return RequestHead(method, b"catalog:80", path.encode("latin-1"), made)


def path_match(kind: Literal["exact", "prefix", "regex"], value: str) -> Match:
    return Match(MatchSpec(path=PathMatchSpec(type=kind, value=value)))


@pytest.mark.parametrize(
    ("kind", "value", "path", "expected"),
    [
        ("exact", "/api", "/api", True),
        ("exact", "/api", "/api?x=1", True),
        ("exact", "/api", "/api/", False),
        ("exact", "/api", "/API", False),
        ("prefix", "/api", "/api", True),
        ("prefix", "/api", "/api/", True),
        ("prefix", "/api", "/api/x", True),
        ("prefix", "/api", "/api?x", True),
        ("prefix", "/api", "/apix", False),
        ("prefix", "/api", "/ap", False),
        ("prefix", "/api/", "/api", True),
        ("prefix", "/api/", "/api/x", True),
        ("prefix", "/api/", "/apix", False),
        ("prefix", "/", "/anything", True),
        ("prefix", "/", "*", True),
        ("regex", "/v[0-9]+", "/v12", True),
        ("regex", "/v[0-9]+", "/v12?x", True),
        ("regex", "/v[0-9]+", "/v12/x", False),
        ("regex", "/v[0-9]+", "/x/v12", False),
        ("regex", ".*", "/\xff", False),
        ("regex", "[^x]*", "/\xff", False),
    ],
)
def test_paths(
    kind: Literal["exact", "prefix", "regex"], value: str, path: str, expected: bool
) -> None:
    """Prefixes match whole segments, expressions the whole path, and the query never counts."""
    assert path_match(kind, value).holds(head(path)) is expected


def test_no_condition_matches_everything() -> None:
    """An HTTPRoute rule without matches serves every request."""
    assert Match(MatchSpec()).holds(head("/x?y", b"DELETE"))


def test_methods_are_case_sensitive() -> None:
    """RFC 9110 section 9.1."""
    match = Match(MatchSpec(method="GET"))
    assert match.holds(head())
    assert not match.holds(head("/", b"get"))


@pytest.mark.parametrize(
    ("kind", "value", "fields", "expected"),
    [
        ("exact", "a", [(b"X-V", b"a")], True),
        ("exact", "a", [(b"X-V", b"A")], False),
        ("exact", "a", [], False),
        ("exact", "", [(b"X-V", b"")], True),
        ("exact", "", [], False),
        ("exact", "a", [(b"X-V", b"a"), (b"x-v", b"b")], False),
        ("exact", "a, b", [(b"X-V", b"a"), (b"x-v", b"b")], True),
        ("regex", "a+", [(b"X-V", b"aaa")], True),
        ("regex", "a+", [(b"X-V", b"aaab")], False),
        ("regex", "a+", [(b"X-V", b"a"), (b"X-V", b"evil")], False),
        ("regex", ".*", [(b"X-V", b"\xff")], False),
        ("regex", ".*", [], False),
    ],
)
def test_headers(
    kind: Literal["exact", "regex"],
    value: str,
    fields: list[tuple[bytes, bytes]],
    expected: bool,
) -> None:
    """All lines of a header count together, so a second line cannot hide behind a good first."""
    match = Match(MatchSpec(headers=(ValueMatchSpec(name="x-V", type=kind, value=value),)))
    assert match.holds(head("/", b"GET", *fields)) is expected


def test_a_match_on_host_looks_at_the_authority() -> None:
    """Host never appears among the fields of a head."""
    match = Match(MatchSpec(headers=(ValueMatchSpec(name="Host", value="catalog:80"),)))
    assert match.holds(head())


@pytest.mark.parametrize(
    ("kind", "value", "path", "expected"),
    [
        ("exact", "1", "/?v=1", True),
        ("exact", "1", "/?a=b&v=1", True),
        ("exact", "1", "/?V=1", False),
        ("exact", "1", "/?v=2&v=1", False),
        ("exact", "1", "/?v=1&v=2", True),
        ("exact", "1", "/v=1", False),
        ("exact", "", "/?v", True),
        ("exact", "a b", "/?v=a+b", True),
        ("exact", "a b", "/?v=a%20b", True),
        ("exact", "ü", "/?v=%C3%BC", True),
        ("exact", "1", "/?%76=1", True),
        ("exact", "%zz", "/?v=%zz", False),
        ("exact", "1", "/?v=%zz&v=1", False),
        ("regex", "[0-9]+", "/?v=42", True),
        ("regex", "[0-9]+", "/?v=42x", False),
        ("regex", ".*", "/?v=%FF", False),
        ("regex", ".*", "/?w=1", False),
    ],
)
def test_query_parameters(
    kind: Literal["exact", "regex"], value: str, path: str, expected: bool
) -> None:
    """Decoded, case-sensitive, the first of several decides, and what is broken never matches."""
    match = Match(MatchSpec(query=(ValueMatchSpec(name="v", type=kind, value=value),)))
    assert match.holds(head(path)) is expected


def test_of_entries_with_an_equivalent_name_the_first_counts() -> None:
    """Gateway API: header names are equal whatever their case; query names are not."""
    match = Match(
        MatchSpec(
            headers=(ValueMatchSpec(name="a", value="1"), ValueMatchSpec(name="A", value="2")),
            query=(ValueMatchSpec(name="q", value="1"), ValueMatchSpec(name="q", value="2")),
        )
    )
    assert match.holds(head("/?q=1", b"GET", (b"a", b"1")))


def test_all_conditions_must_hold() -> None:
    """Path, method, headers and query are joined by AND."""
    match = Match(
        MatchSpec(
            path=PathMatchSpec(type="prefix", value="/a"),
            method="POST",
            headers=(ValueMatchSpec(name="h", value="1"),),
            query=(ValueMatchSpec(name="q", value="1"),),
        )
    )
    assert match.holds(head("/a?q=1", b"POST", (b"h", b"1")))
    assert not match.holds(head("/b?q=1", b"POST", (b"h", b"1")))
    assert not match.holds(head("/a?q=1", b"GET", (b"h", b"1")))
    assert not match.holds(head("/a?q=1", b"POST", (b"h", b"2")))
    assert not match.holds(head("/a?q=2", b"POST", (b"h", b"1")))


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (MatchSpec(path=PathMatchSpec(type="exact", value="api")), "match.path.value"),
        (MatchSpec(path=PathMatchSpec(type="prefix", value="")), "match.path.value"),
        (MatchSpec(path=PathMatchSpec(type="regex", value="(")), "match.path.value"),
        (MatchSpec(path=PathMatchSpec(type="regex", value="(?=x)")), "match.path.value"),
        (
            MatchSpec(headers=(ValueMatchSpec(name="h", type="regex", value="["),)),
            "match.headers[0].value",
        ),
        (
            MatchSpec(query=(ValueMatchSpec(name="h", type="regex", value="*"),)),
            "match.query[0].value",
        ),
    ],
)
def test_errors_say_where(spec: MatchSpec, path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A bad value is refused with its path, and RE2 writes nothing to standard error."""
    with pytest.raises(ContractError) as caught:
        Match(spec)
    assert caught.value.path == path
    assert capfd.readouterr().err == ""


def test_re2_is_loaded_only_when_there_is_a_regular_expression() -> None:
    """A sidecar whose routes need none does not pay for the library's memory."""
    program = (
        "import sys\n"
        "from meshproxy.routing import table\n"
        "from meshproxy.routing.match import Match\n"
        "from meshproxy.contract.matching import MatchSpec, PathMatchSpec as P\n"
        "Match(MatchSpec(path=P(type='exact', value='/a')))\n"
        "assert 're2' not in sys.modules\n"
        "Match(MatchSpec(path=P(type='regex', value='/a')))\n"
        "assert 're2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("principals", "identity", "expected"),
    [
        ((), None, True),
        ((), "spiffe://a/ns/b/sa/c", True),
        (("spiffe://a/ns/b/sa/c",), "spiffe://a/ns/b/sa/c", True),
        (("spiffe://a/ns/b/sa/c",), "spiffe://a/ns/b/sa/cc", False),
        (("spiffe://a/ns/b/*",), "spiffe://a/ns/b/sa/c", True),
        (("spiffe://a/ns/b/*",), "spiffe://a/ns/bb/sa/c", False),
        (("spiffe://x/y", "spiffe://a/*"), "spiffe://a/ns/b/sa/c", True),
        (("*",), "spiffe://a/ns/b/sa/c", True),
        (("*",), None, False),
        (("*",), "", False),
        (("spiffe://a/ns/b/sa/c",), None, False),
    ],
)
def test_who_calls(principals: tuple[str, ...], identity: str | None, expected: bool) -> None:
    """A name, or all that begin with it; nobody who was not proved is anybody in particular."""
    assert IdentityMatch(IdentityMatchSpec(principals=principals)).holds(identity) == expected


def test_no_expression_takes_for_ever() -> None:
    """RE2 reads each byte once; the same expression keeps Python's `re` busy for years."""
    for value in ("/(a+)+", "/(a|a)*", "/(a|aa)+$", "/(.*)*b", "/a{1,500}a{1,500}b"):
        assert not path_match("regex", value).holds(head("/" + "a" * 5_000 + "!"))

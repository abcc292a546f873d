import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.contract.resources import (
    HeaderModifierSpec,
    HeaderSpec,
    PathRewriteSpec,
    RedirectSpec,
    RewriteSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field
from meshproxy.routing.rewrite import HeaderModifier, Redirect, Rewrite


def head(path: bytes = b"/", authority: bytes = b"catalog:8080") -> RequestHead:
    return RequestHead(b"GET", authority, path, [])


# Headers ------------------------------------------------------------------------------------------


def modifier(
    set: dict[str, str] | None = None,  # noqa: A002 - the Gateway API's word
    add: dict[str, str] | None = None,
    remove: tuple[str, ...] = (),
) -> HeaderModifier:
    return HeaderModifier(
        HeaderModifierSpec(
            set=tuple(HeaderSpec(name=n, value=v) for n, v in (set or {}).items()),
            add=tuple(HeaderSpec(name=n, value=v) for n, v in (add or {}).items()),
            remove=remove,
        )
    )


def test_set_replaces_every_field_of_the_name() -> None:
    """Two lines of one name become one; other fields stay in their order."""
    fields = [field(b"A", b"1"), field(b"B", b"2"), field(b"a", b"3")]
    assert modifier(set={"a": "9"}).apply(fields) == [field(b"B", b"2"), field(b"a", b"9")]


def test_add_keeps_what_there_is() -> None:
    """The new field follows those of the same name."""
    fields = [field(b"A", b"1")]
    assert modifier(add={"a": "2"}).apply(fields) == [field(b"A", b"1"), field(b"a", b"2")]


def test_remove_wins_because_it_comes_last() -> None:
    """Order of the Gateway API: set, add, remove."""
    made = modifier(set={"a": "1"}, add={"b": "2", "c": "3"}, remove=("A", "B"))
    assert made.apply([field(b"a", b"0")]) == [field(b"c", b"3")]


def test_set_then_add_of_one_name_gives_both() -> None:
    """What is added after a set is not replaced by it."""
    made = modifier(set={"a": "1"}, add={"A": "2"})
    assert made.apply([field(b"a", b"0")]) == [field(b"a", b"1"), field(b"A", b"2")]


def test_of_two_sets_of_one_name_the_first_counts() -> None:
    """Gateway API: the first entry with an equivalent name."""
    assert modifier(set={"a": "1", "A": "2"}).apply([]) == [field(b"a", b"1")]


def test_the_given_list_is_not_changed() -> None:
    """A retry starts again from what the client sent."""
    fields = [field(b"a", b"1")]
    for made in (modifier(add={"b": "2"}), modifier(remove=("a",)), modifier()):
        assert made.apply(fields) is not fields
    assert fields == [field(b"a", b"1")]


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("a b", "1", "w.set[0].name"),
        ("a:", "1", "w.set[0].name"),
        ("ä", "1", "w.set[0].name"),
        ("Host", "x", "w.set[0].name"),
        ("Content-Length", "1", "w.set[0].name"),
        ("transfer-encoding", "chunked", "w.set[0].name"),
        ("Connection", "close", "w.set[0].name"),
        ("x-mesh-peer", "x", "w.set[0].name"),
        ("X_Mesh_Peer", "x", "w.set[0].name"),
        ("X-Forwarded-Client-Cert", "x", "w.set[0].name"),
        ("a", "1\r\nb: 2", "w.set[0].value"),
        ("a", "1\x00", "w.set[0].value"),
        ("a", " 1", "w.set[0].value"),
    ],
)
def test_a_header_cannot_break_out_of_its_line(name: str, value: str, path: str) -> None:
    """Nor take over what frames the message or says who called."""
    spec = HeaderModifierSpec(set=(HeaderSpec(name=name, value=value),))
    with pytest.raises(ContractError) as caught:
        HeaderModifier(spec, "w")
    assert caught.value.path == path


# Paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "prefix", "replacement", "expected"),
    [
        # The table of the Gateway API, HTTPPathModifier.replacePrefixMatch
        (b"/foo/bar", "/foo", "/xyz", b"/xyz/bar"),
        (b"/foo/bar", "/foo", "/xyz/", b"/xyz/bar"),
        (b"/foo/bar", "/foo/", "/xyz", b"/xyz/bar"),
        (b"/foo/bar", "/foo/", "/xyz/", b"/xyz/bar"),
        (b"/foo", "/foo", "/xyz", b"/xyz"),
        (b"/foo/", "/foo", "/xyz", b"/xyz/"),
        (b"/foo/bar", "/foo", "", b"/bar"),
        (b"/foo/", "/foo", "", b"/"),
        (b"/foo", "/foo", "", b"/"),
        (b"/foo/", "/foo", "/", b"/"),
        (b"/foo", "/foo", "/", b"/"),
        # and what it leaves open
        (b"/foo/bar?q=/foo", "/foo", "/xyz", b"/xyz/bar?q=/foo"),
        (b"/foo?q", "/foo", "", b"/?q"),
        (b"/bar", "/", "/xyz", b"/xyz/bar"),
        (b"*", "/", "/xyz", b"*"),
    ],
)
def test_replacing_a_prefix(path: bytes, prefix: str, replacement: str, expected: bytes) -> None:
    """Slashes are neither doubled nor lost, and the query stays."""
    spec = RewriteSpec(path=PathRewriteSpec(type="prefix", value=replacement))
    request = head(path)
    Rewrite(spec, prefix.removesuffix("/").encode()).apply(request)
    assert request.path == expected


@pytest.mark.parametrize(
    ("path", "replacement", "expected"),
    [
        (b"/a", "/x", b"/x"),
        (b"/a/b?q", "/x/", b"/x/?q"),
        (b"/a?", "/x", b"/x?"),
        (b"/a", "", b"/"),
    ],
)
def test_replacing_the_full_path(path: bytes, replacement: str, expected: bytes) -> None:
    """The query stays; the replacement is taken as it is."""
    request = head(path)
    Rewrite(RewriteSpec(path=PathRewriteSpec(type="full", value=replacement))).apply(request)
    assert request.path == expected


def test_a_new_hostname_replaces_the_authority() -> None:
    """The value of the Host field during forwarding, port and all."""
    request = head()
    Rewrite(RewriteSpec(hostname="other.example")).apply(request)
    assert request.authority == b"other.example"
    assert request.path == b"/"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (RewriteSpec(hostname="a b"), "w.hostname"),
        (RewriteSpec(hostname=""), "w.hostname"),
        (RewriteSpec(path=PathRewriteSpec(type="full", value="x")), "w.path.value"),
        (RewriteSpec(path=PathRewriteSpec(type="full", value="/a b")), "w.path.value"),
        (RewriteSpec(path=PathRewriteSpec(type="full", value="/a?b")), "w.path.value"),
        (RewriteSpec(path=PathRewriteSpec(type="full", value="/a\r\n")), "w.path.value"),
        (RewriteSpec(path=PathRewriteSpec(type="prefix", value="/a")), "w.path"),
    ],
)
def test_a_rewrite_that_could_not_be_sent_is_refused(spec: RewriteSpec, path: str) -> None:
    """Also one that replaces a prefix where none is matched."""
    with pytest.raises(ContractError) as caught:
        Rewrite(spec, None, "w")
    assert caught.value.path == path


@settings(deadline=None)
@given(st.text(max_size=8))
def test_no_replacement_ends_the_request_line(value: str) -> None:
    """Whatever a rewrite accepts leaves a target of visible ASCII that starts with a slash."""
    try:
        made = Rewrite(RewriteSpec(path=PathRewriteSpec(type="full", value=value)))
    except ContractError:
        return
    request = head(b"/a?b")
    made.apply(request)
    assert request.path.startswith(b"/")
    assert request.path.endswith(b"?b")
    assert all(0x21 <= byte <= 0x7E for byte in request.path)


# Redirects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "authority", "expected"),
    [
        (RedirectSpec(), b"a:8080", b"http://a:8080/p?q"),
        (RedirectSpec(), b"a:80", b"http://a/p?q"),
        (RedirectSpec(), b"a", b"http://a/p?q"),
        (RedirectSpec(hostname="b"), b"a:8080", b"http://b:8080/p?q"),
        (RedirectSpec(scheme="https"), b"a:8080", b"https://a/p?q"),
        (RedirectSpec(scheme="http"), b"a:8080", b"http://a/p?q"),
        (RedirectSpec(scheme="https", port=443), b"a", b"https://a/p?q"),
        (RedirectSpec(scheme="https", port=80), b"a", b"https://a:80/p?q"),
        (RedirectSpec(port=8443), b"a:80", b"http://a:8443/p?q"),
        (RedirectSpec(port=80), b"a:8080", b"http://a/p?q"),
        (RedirectSpec(), b"[::1]:8080", b"http://[::1]:8080/p?q"),
        (RedirectSpec(scheme="https"), b"[::1]", b"https://[::1]/p?q"),
        (
            RedirectSpec(path=PathRewriteSpec(type="full", value="/x")),
            b"a",
            b"http://a/x?q",
        ),
        (
            RedirectSpec(path=PathRewriteSpec(type="prefix", value="/x")),
            b"a",
            b"http://a/x?q",
        ),
    ],
)
def test_location(spec: RedirectSpec, authority: bytes, expected: bytes) -> None:
    """What is not given stays; a port that the scheme implies is left out (Gateway API)."""
    assert Redirect(spec, b"/p").location(head(b"/p?q", authority)) == expected


def test_the_status_is_the_given_one() -> None:
    """302 when none is given."""
    assert Redirect(RedirectSpec()).status == 302
    assert Redirect(RedirectSpec(status=308)).status == 308


def test_a_redirect_of_the_asterisk_form_goes_to_the_root() -> None:
    """A Location needs a path."""
    assert Redirect(RedirectSpec()).location(head(b"*", b"a")) == b"http://a/"


def test_a_redirect_is_checked_like_a_rewrite() -> None:
    """It ends up in a field line."""
    with pytest.raises(ContractError) as caught:
        Redirect(RedirectSpec(path=PathRewriteSpec(type="prefix", value="/a")), None, "w")
    assert caught.value.path == "w.path"

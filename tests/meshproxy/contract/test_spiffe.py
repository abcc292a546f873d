import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.spiffe import SpiffeError, SpiffeId, check_trust_domain

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
SEGMENT = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..")
)
DOMAIN = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=40)


@given(DOMAIN, SEGMENT, SEGMENT)
def test_what_is_built_reads_back_as_the_same(domain: str, namespace: str, account: str) -> None:
    """Building, writing and reading an identity loses nothing."""
    built = SpiffeId.of(domain, namespace, account)
    assert SpiffeId.parse(str(built)) == built
    assert built.service_account == (namespace, account)


@given(st.text())
def test_any_text_is_an_id_that_is_spelled_in_one_way_or_an_error(text: str) -> None:
    """Whatever is accepted is written exactly as it was read, so equal strings are equal IDs."""
    for candidate in (text, f"spiffe://{text}", f"spiffe://mesh.local/{text}"):
        try:
            parsed = SpiffeId.parse(candidate)
        except SpiffeError:
            continue
        assert str(parsed) == candidate


def test_a_trust_domain_alone_is_an_id() -> None:
    """An authority is called by its trust domain; it is no service account."""
    parsed = SpiffeId.parse("spiffe://mesh.local")
    assert parsed == SpiffeId("mesh.local", "")
    assert parsed.service_account is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://mesh.local/ns/a/sa/b",
        "SPIFFE://mesh.local/ns/a/sa/b",
        "spiffe:/mesh.local/a",
        "spiffe://",
        "spiffe:///ns/a/sa/b",
        "spiffe://Mesh.local/ns/a/sa/b",
        "spiffe://mesh.local:443/ns/a/sa/b",
        "spiffe://user@mesh.local/ns/a/sa/b",
        "spiffe://mesh.local/",
        "spiffe://mesh.local/ns/a/sa/b/",
        "spiffe://mesh.local/ns//sa/b",
        "spiffe://mesh.local/ns/./sa/b",
        "spiffe://mesh.local/ns/../sa/b",
        "spiffe://mesh.local/ns/a/sa/b?x=1",
        "spiffe://mesh.local/ns/a/sa/b#x",
        "spiffe://mesh.local/ns/%61/sa/b",
        "spiffe://mesh.local/ns/a/sa/b\n",
        "spiffe://mesh.local/ns/a/sa/b\0.evil",
        "spiffe://mesh.local\n/ns/a/sa/b",
        "spiffe://mésh.local/ns/a/sa/b",
        "spiffe://" + "a" * 256 + "/x",
        "spiffe://mesh.local/" + "a" * 2048,
    ],
)
def test_what_breaks_a_rule_of_the_standard_is_refused(text: str) -> None:
    """No second spelling of an identity gets through."""
    with pytest.raises(SpiffeError):
        SpiffeId.parse(text)


@pytest.mark.parametrize("path", ["", "/ns/a", "/ns/a/sa/b/c", "/sa/b/ns/a", "/NS/a/sa/b"])
def test_a_service_account_has_one_shape(path: str) -> None:
    """Where an identity of a workload is needed, other SPIFFE IDs are refused."""
    with pytest.raises(SpiffeError, match="expected the path /ns/"):
        SpiffeId.parse_service_account(f"spiffe://mesh.local{path}")
    assert str(SpiffeId.parse_service_account(CATALOG)) == CATALOG


@pytest.mark.parametrize("part", ["", "..", "a/b", "a b", "a\n"])
def test_parts_that_would_change_the_shape_are_refused(part: str) -> None:
    """A namespace or service account cannot smuggle a path into an identity."""
    with pytest.raises(SpiffeError):
        SpiffeId.of("mesh.local", part, "b")
    with pytest.raises(SpiffeError):
        SpiffeId.of("mesh.local", "a", part)


def test_a_trust_domain_is_checked_alone_too() -> None:
    """Configuration names trust domains without the rest of an ID."""
    check_trust_domain("mesh.local")
    with pytest.raises(SpiffeError, match="lower-case"):
        check_trust_domain("Mesh")

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.identity import x509
from meshproxy.identity.x509 import CertificateError
from tests.helpers.certificates import TestAuthority, der, pem, uri

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
ROOT = TestAuthority()
LEAF = der(ROOT.leaf(uri(CATALOG))[0])


def test_the_facts_of_a_leaf() -> None:
    """Names, validity and the right to sign are what `cryptography` says they are."""
    certificate, _key = ROOT.leaf(uri(CATALOG), reference.DNSName("catalog"))
    facts = x509.read(der(certificate))
    assert facts.uris == (CATALOG,)
    assert facts.not_before == certificate.not_valid_before_utc.timestamp()
    assert facts.not_after == certificate.not_valid_after_utc.timestamp()
    assert not facts.authority
    assert facts.serial == f"{certificate.serial_number:x}"
    assert facts.issuer == certificate.issuer.rfc4514_string()


def test_names_are_written_as_they_are_shown_everywhere() -> None:
    """RFC 4514: from the most specific part to the least."""
    facts = x509.read(der(ROOT.certificate))
    assert facts.subject == ROOT.certificate.subject.rfc4514_string() != ""


def test_a_bundle_is_read_certificate_by_certificate() -> None:
    """Whatever stands between them; half a certificate at the end is none."""
    other = TestAuthority("other")
    bundle = f"# ours\n{ROOT.pem}# theirs\n{other.pem}-----BEGIN CERTIFICATE-----\nabc"
    assert list(x509.chain(bundle)) == [der(ROOT.certificate), der(other.certificate)]


@pytest.mark.parametrize(("ca", "signs"), [(True, True), (True, False), (False, True)])
def test_an_authority_shows_by_either_extension(ca: bool, signs: bool) -> None:
    """CA:TRUE, or a key usage that includes signing certificates."""
    assert x509.read(der(ROOT.leaf(uri(CATALOG), ca=ca, signs=signs)[0])).authority
    assert x509.read(der(ROOT.certificate)).authority


@given(st.lists(st.sampled_from(["u", "d", "o"]), max_size=6))
def test_only_uris_count_as_uris(kinds: list[str]) -> None:
    """A SPIFFE ID in a DNS name or in an otherName is none."""
    oid = reference.ObjectIdentifier("1.2.3.4")
    made = {
        "u": uri(CATALOG),
        "d": reference.DNSName(CATALOG),
        "o": reference.OtherName(oid, b"\x0c\x03abc"),
    }
    certificate, _key = ROOT.leaf(*(made[kind] for kind in kinds))
    assert x509.read(der(certificate)).uris == (CATALOG,) * kinds.count("u")


@pytest.mark.parametrize("year", [1975, 2049, 2050, 2190])
def test_both_forms_of_time(year: int) -> None:
    """UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5)."""
    ends = datetime(year, 3, 1, 12, 30, 59, tzinfo=UTC)
    certificate, _key = ROOT.leaf(not_before=ends - timedelta(days=1), not_after=ends)
    assert x509.read(der(certificate)).not_after == ends.timestamp()


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    """No bytes make the reader fail in another way than by saying so."""
    with pytest.raises(CertificateError):
        x509.read(data)


@settings(max_examples=300)
@given(st.integers(0, len(LEAF) - 1), st.integers(0, 255))
def test_a_damaged_certificate_reads_or_is_an_error(at: int, byte: int) -> None:
    """One wrong byte anywhere, and cut off anywhere: still only our own error."""
    for damaged in (LEAF[:at] + bytes([byte]) + LEAF[at + 1 :], LEAF[:at]):
        with suppress(CertificateError):
            x509.read(damaged)


def test_the_leaf_of_a_chain_is_its_first_certificate() -> None:
    """Also when the key stands before it in the same file."""
    certificate, _key = ROOT.leaf(uri(CATALOG))
    assert x509.leaf("some key\n" + pem(certificate) + ROOT.pem) == der(certificate)
    for nothing in ("", "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----"):
        with pytest.raises(CertificateError):
            x509.leaf(nothing)
    with pytest.raises(CertificateError):
        x509.leaf("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----")


@pytest.mark.parametrize(
    "text", [b"2611220330Z", b"261122033000+0100", b"26112203300Z", b"2611220330 0Z"]
)
def test_other_times_are_no_times(text: bytes) -> None:
    """RFC 5280 section 4.1.2.5.1: with seconds and in GMT, or it is not a certificate of ours."""
    with pytest.raises(x509.CertificateError):
        x509._time(x509._Value(x509._UTC_TIME, text))


def test_those_above_a_certificate_are_found_up_to_the_root() -> None:
    """In their order, whatever else is in the pool; above a root there is nobody."""
    between = TestAuthority("between", signed_by=ROOT)
    leaf = der(between.leaf(uri(CATALOG))[0])
    issuer, root = der(between.certificate), der(ROOT.certificate)
    pool = [der(TestAuthority("other").certificate), root, issuer]
    assert x509.above(leaf, pool) == [issuer, root]
    assert x509.above(issuer, pool) == [root]
    assert x509.above(root, pool) == []
    assert x509.above(leaf, [root]) == []


def test_of_two_with_the_same_name_the_key_says_which_one_it_is() -> None:
    """A root that is replaced by one of the same name."""
    successor = TestAuthority()
    pool = [der(successor.certificate), der(ROOT.certificate)]
    assert x509.above(LEAF, pool) == [der(ROOT.certificate)]
    assert x509.above(der(successor.leaf(uri(CATALOG))[0]), pool) == [der(successor.certificate)]


def test_where_no_key_is_told_the_name_is_enough() -> None:
    """The extensions that tell it are not mandatory for who verifies; where two fit, nobody is named."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    bare = (
        reference.CertificateBuilder()
        .issuer_name(ROOT.name)
        .subject_name(reference.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(ROOT.key, hashes.SHA256())
    )
    root, other = der(ROOT.certificate), der(TestAuthority().certificate)
    assert x509.above(der(bare), [root]) == [root]
    assert x509.above(der(bare), [root, other]) == []  # but not a choice


def test_two_that_name_each_other_are_not_followed_for_ever() -> None:
    """Cross-signed authorities: each is met once."""
    one, other = TestAuthority("one"), TestAuthority("other")
    crossed = [der(TestAuthority("one", signed_by=other).certificate),
               der(TestAuthority("other", signed_by=one).certificate)]  # fmt: skip
    assert len(x509.above(der(one.leaf(uri(CATALOG))[0]), crossed)) <= len(crossed)

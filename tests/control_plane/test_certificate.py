from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from control_plane import certificate
from control_plane.certificate import Issuer
from meshproxy.contract.spiffe import SpiffeId
from tests.helpers.certificates import TestAuthority

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CATALOG = SpiffeId.of("mesh.local", "default", "catalog")


def test_nothing_outlives_who_signed_it() -> None:
    """An issuing certificate ends with its root, an SVID with its issuer."""
    root_key, key = certificate.new_key(), certificate.new_key()
    root = certificate.root("mesh.local", root_key, NOW, 2 * DAY)
    issuing = certificate.issuing("mesh.local", key, Issuer(root, root_key), NOW, 9 * DAY)
    leaf = certificate.svid(CATALOG, key.public_key(), Issuer(issuing, key), NOW, 9 * DAY)
    assert {one.not_valid_after_utc for one in (root, issuing, leaf)} == {NOW + 2 * DAY}
    assert all(NOW - one.not_valid_before_utc >= timedelta(minutes=5) for one in (issuing, leaf))


def test_each_points_to_the_key_of_its_issuer() -> None:
    """So two roots of one trust domain are told apart, also by people."""
    keys = [certificate.new_key() for _ in range(2)]
    roots = [certificate.root("mesh.local", key, NOW, DAY) for key in keys]
    assert roots[0].subject != roots[1].subject
    for root, key in zip(roots, keys, strict=True):
        issuing = certificate.issuing("mesh.local", key, Issuer(root, key), NOW, DAY)
        assert certificate.issuer_key_id(issuing.extensions) == certificate.key_id(root)
        assert certificate.trust_domain_of(issuing) == "mesh.local"


def test_an_operators_certificate_may_name_its_key_as_it_likes() -> None:
    """What it signs points to that name; without one, to what RFC 5280 says."""
    key = certificate.new_key()
    for named in (True, False):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + DAY)
        )
        if named:
            builder = builder.add_extension(x509.SubjectKeyIdentifier(b"own"), critical=False)
        issuing = builder.sign(key, hashes.SHA256())
        leaf = certificate.svid(CATALOG, key.public_key(), Issuer(issuing, key), NOW, DAY)
        assert certificate.issuer_key_id(leaf.extensions) == certificate.key_id(issuing)
        assert (certificate.key_id(issuing) == b"own".hex()) is named


def test_what_is_not_said_is_empty() -> None:
    """A certificate that names no trust domain, or no issuer's key."""
    plain = TestAuthority().certificate
    assert certificate.trust_domain_of(plain) == ""
    assert certificate.issuer_key_id(x509.Extensions([])) == ""

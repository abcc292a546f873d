"""Does a sidecar need a join token?"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from control_plane.cli.local.credentials import has_certificate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDENTITY = "spiffe://td/ns/default/sa/shop"


def certificate(identity: str, not_after: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(not_after)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("identity", "life", "expected"),
    [
        (IDENTITY, timedelta(hours=1), True),
        (IDENTITY, timedelta(seconds=5), False),
        (IDENTITY, timedelta(hours=-1), False),
        ("spiffe://td/ns/default/sa/other", timedelta(hours=1), False),
    ],
)
def test_a_certificate_counts_if_it_is_the_right_one_and_lives(
    tmp_path: Path, identity: str, life: timedelta, expected: bool
) -> None:
    """Identity and remaining life decide."""
    (tmp_path / "identity.pem").write_bytes(certificate(identity, NOW + life))

    assert has_certificate(tmp_path, IDENTITY, NOW) is expected


def test_what_is_no_certificate_does_not_count(tmp_path: Path) -> None:
    """An empty state, half a file, something else: a token is needed."""
    assert not has_certificate(tmp_path, IDENTITY, NOW)

    (tmp_path / "identity.pem").write_bytes(certificate(IDENTITY, NOW + timedelta(days=1))[:100])
    assert not has_certificate(tmp_path, IDENTITY, NOW)

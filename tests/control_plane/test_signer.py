from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control_plane import signer
from control_plane.signer import Given, SignerError
from meshproxy import private_file
from tests.helpers.certificates import TestAuthority, key_pem, pem, uri, usage

HOUR = timedelta(hours=1)


def files(
    folder: Path, root: TestAuthority | str, issuing: TestAuthority | str, key: str = ""
) -> Given:
    """Write an operator's files."""
    (folder / "root.pem").write_text(root if isinstance(root, str) else root.pem)
    (folder / "issuing.pem").write_text(issuing if isinstance(issuing, str) else issuing.pem)
    if isinstance(issuing, TestAuthority):
        key = key or key_pem(issuing.key)
    private_file.write(folder / "issuing.key", key.encode())
    return Given(folder / "root.pem", folder / "issuing.pem", folder / "issuing.key")


def given(found: Given) -> signer.Signer:
    return signer.given(found, "mesh.local", datetime.now(UTC))


def test_a_signer_goes_through_a_file() -> None:
    """What is written down during a rotation is the same when it is read."""
    made = signer.created("mesh.local", datetime.now(UTC))
    read = signer.from_file(made.to_file())
    assert (read.root, read.chain) == (made.root, made.chain)
    assert read.to_file() == made.to_file()


def test_a_chain_of_several_is_taken(tmp_path: Path) -> None:
    """What is between issuing certificate and root is handed out with each SVID."""
    root = TestAuthority("root")
    middle = TestAuthority("middle", signed_by=root)
    issuing = TestAuthority("issuing", signed_by=middle)
    found = given(files(tmp_path, root, issuing.pem + middle.pem, key_pem(issuing.key)))
    assert found.chain == (issuing.certificate, middle.certificate)
    assert found.root_key is None


def authority_with_rsa() -> tuple[TestAuthority, str, str]:
    """Return a root, and an issuing certificate under it with an RSA key."""
    root = TestAuthority("root")
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")]))
        .issuer_name(root.name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()),
            critical=False,
        )
        .sign(root.key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return root, pem(certificate), text.decode()


def test_an_rsa_key_signs_too(tmp_path: Path) -> None:
    """Corporate authorities often have one."""
    root, certificate, key = authority_with_rsa()
    assert given(files(tmp_path, root, certificate, key)).chain[0].serial_number == 7


ROOT = TestAuthority("root")
ISSUING = TestAuthority("issuing", signed_by=ROOT)
LEAF, LEAF_KEY = ROOT.leaf(uri("spiffe://mesh.local/ns/a/sa/b"))
FOREIGN, FOREIGN_KEY = ROOT.leaf(uri("spiffe://other.local"), ca=True, signs=True)
PAST = datetime.now(UTC) - 2 * HOUR
EXPIRED, EXPIRED_KEY = ROOT.leaf(ca=True, signs=True, not_before=PAST, not_after=PAST + HOUR)
LATER, LATER_KEY = ROOT.leaf(
    ca=True, signs=True, not_before=PAST + 3 * HOUR, not_after=PAST + 4 * HOUR
)
MUTE, MUTE_KEY = ROOT.leaf(ca=True)
TOO_DEEP = TestAuthority(
    "narrow",
    signed_by=ROOT,
    constraints=x509.NameConstraints([x509.UniformResourceIdentifier("elsewhere.local")], None),
)
ENCRYPTED = (
    ISSUING.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
).decode()
SMALL = (
    rsa.generate_private_key(65537, 1024)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)


@pytest.mark.parametrize(
    ("root", "issuing", "key", "reason"),
    [
        ("nonsense", ISSUING, "", r"root\.pem: expected PEM certificates"),
        (ROOT.pem + ISSUING.pem, ISSUING, "", r"root\.pem: expected one root certificate, found 2"),
        (ISSUING, ISSUING, "", r"root\.pem: CN=issuing is not signed by itself"),
        (ROOT, "nonsense", key_pem(ISSUING.key), r"issuing\.pem: expected PEM certificates"),
        (ROOT, ISSUING, "nonsense", r"issuing\.key: expected a PEM key"),
        (ROOT, ISSUING, ENCRYPTED, r"issuing\.key: expected a key without a password"),
        (ROOT, ISSUING, SMALL, r"issuing\.key: expected a key on the curve"),
        (ROOT, ISSUING, key_pem(ROOT.key), r"issuing\.key: is not the key of CN=issuing"),
        (TestAuthority("root"), ISSUING, "", "CN=issuing is not signed by CN=root"),
        (ROOT, TestAuthority("x", signed_by=ISSUING), "", "CN=x is not signed by CN=root"),
        (ROOT, pem(LEAF), key_pem(LEAF_KEY), "expected CA:TRUE"),
        (ROOT, pem(EXPIRED), key_pem(EXPIRED_KEY), "has expired"),
        (ROOT, pem(LATER), key_pem(LATER_KEY), "is not valid before"),
        (ROOT, pem(MUTE), key_pem(MUTE_KEY), "expected keyCertSign"),
        (ROOT, pem(FOREIGN), key_pem(FOREIGN_KEY), "of the trust domain 'other.local'"),
        (ROOT, TOO_DEEP, "", "nobody would believe what it signs"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    root: TestAuthority | str, issuing: TestAuthority | str, key: str, reason: str, tmp_path: Path
) -> None:
    """And with what was expected, before anything is signed with it."""
    with pytest.raises(SignerError, match=reason):
        given(files(tmp_path, root, issuing, key))


def test_a_file_that_is_not_there_or_open_to_others(tmp_path: Path) -> None:
    """The key must be readable by nobody else; what is missing is named."""
    found = files(tmp_path, ROOT, ISSUING)
    found.key.chmod(0o644)
    with pytest.raises(SignerError, match=r"issuing\.key: has mode 0644, expected 0600"):
        given(found)
    found.root.unlink()
    with pytest.raises(SignerError, match=r"root\.pem: cannot be read: No such file"):
        given(found)


def test_keys_on_other_curves_are_refused() -> None:
    """P-521 is legal and rare; what is not tested is not taken."""
    key = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(SignerError, match="P-256 or P-384"):
        signer.parse_key(key_pem(key).encode(), "a file")

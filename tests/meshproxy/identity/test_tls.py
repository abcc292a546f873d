"""Real handshakes over memory, with certificates of every wrong kind."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshproxy.identity import tls
from tests.helpers.certificates import TestAuthority, der, key_pem, pem, uri, write

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
REVIEWS = "spiffe://mesh.local/ns/default/sa/reviews"
ROOT = TestAuthority()


def handshake(
    client: ssl.SSLContext, server: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory; raises `ssl.SSLError` when either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="ignored"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = set(ends)
    for _ in range(10):
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.discard(end)
    assert not waiting
    return ends


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of reviews, who dials, and of catalog, who is dialled."""
    folder = tmp_path_factory.mktemp("tls")
    return (
        tls.client_context(ROOT.svid(folder / "reviews.pem", REVIEWS), None, ROOT.pem),
        tls.server_context(ROOT.svid(folder / "catalog.pem", CATALOG), None, ROOT.pem),
    )


Pair = tuple[ssl.SSLContext, ssl.SSLContext]


def test_both_sides_learn_who_the_other_is(pair: Pair) -> None:
    """TLS 1.3, our ALPN, and the peer's SPIFFE ID on both sides."""
    client, server = handshake(*pair)
    assert tls.peer_identity(client, "mesh.local") == CATALOG
    assert tls.peer_identity(server, "mesh.local") == REVIEWS
    assert client.version() == "TLSv1.3"
    assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "mesh-h2"


def test_an_identity_of_another_trust_domain_is_none(pair: Pair) -> None:
    """Roots vouch for one trust domain."""
    client, _server = handshake(*pair)
    assert tls.peer_identity(client, "other.local") is None


def test_a_peer_that_comes_again_is_read_once(pair: Pair) -> None:
    """The same certificate says the same, in whichever domain is asked for; OpenSSL verifies anew."""
    tls._identity_in.cache_clear()
    for _ in range(3):
        client, _server = handshake(*pair)
        assert tls.peer_identity(client, "mesh.local") == CATALOG
        assert tls.peer_identity(client, "other.local") is None
    assert tls._identity_in.cache_info().misses == 2


def test_no_certificate_is_described_in_words(pair: Pair) -> None:
    """What the event loop asks for after each handshake costs nothing; the bytes are there."""
    for end in handshake(*pair):
        assert end.getpeercert() == {}
        assert end.getpeercert(binary_form=True)


def test_one_context_offers_what_each_connection_is_for(pair: Pair) -> None:
    """Each session has the offer of its purpose, also one that shakes hands after the next was made."""
    client, server = pair
    offers = [
        (tls.ALPN, tls.ALPN_HTTP2),
        (tls.ALPN_BULK, tls.ALPN_HTTP1),
        (tls.ALPN_TRUNK, tls.ALPN_TCP),
        (tls.ALPN_LANES, tls.ALPN_LANE),
    ]
    sessions = []
    for offered, _ in offers:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = tls.Offer(client, offered).wrap_bio(incoming, outgoing)
        sessions.append((session, incoming, outgoing))
    agreed = []
    for session, incoming, outgoing in sessions:
        peer = server.wrap_bio(outgoing, incoming, server_side=True)
        for _ in range(3):
            for end in (session, peer):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        agreed.append((session.selected_alpn_protocol(), peer.selected_alpn_protocol()))
    assert agreed == [(expected, expected) for _, expected in offers]


def test_without_tls_there_is_no_identity() -> None:
    """A plaintext transport proves nothing, nor does no transport."""
    assert tls.peer_identity(asyncio.Transport(), "mesh.local") is None
    assert tls.peer_identity(None, "mesh.local") is None


def test_the_server_issues_no_tickets(pair: Pair) -> None:
    """No session can be resumed past a change of roots."""
    client, server = handshake(*pair)
    server.write(b"x")
    assert client.read() == b"x"
    assert client.session is None or not client.session.has_ticket


def test_older_versions_and_anonymous_clients_are_refused(pair: Pair) -> None:
    """TLS 1.2 does not get in, nor does a client without a certificate."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(old, pair[1])
    with pytest.raises(ssl.SSLError):
        handshake(tls.plane_context(ROOT.pem), pair[1])


NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
FOREIGN = TestAuthority()  # the same subject, another key
CONSTRAINED = TestAuthority(
    "constrained",
    signed_by=ROOT,
    constraints=reference.NameConstraints(
        permitted_subtrees=[reference.UniformResourceIdentifier("other.local")],
        excluded_subtrees=None,
    ),
)
OTHER_NAME = reference.OtherName(reference.ObjectIdentifier("1.2.3.4"), b"\x0c\x03abc")
BAD = {
    "no name at all": ROOT.leaf(),
    "SPIFFE ID as a DNS name": ROOT.leaf(reference.DNSName(CATALOG)),
    "SPIFFE ID as another name": ROOT.leaf(OTHER_NAME),
    "NUL in the URI": ROOT.leaf(uri(CATALOG + "\0.evil")),
    "line break in the URI": ROOT.leaf(uri(CATALOG + "\r\nx: y")),
    "two URIs": ROOT.leaf(uri(CATALOG), uri(REVIEWS)),
    "the same URI twice": ROOT.leaf(uri(CATALOG), uri(CATALOG)),
    "another trust domain": ROOT.leaf(uri("spiffe://other.local/ns/default/sa/catalog")),
    "not a SPIFFE ID": ROOT.leaf(uri("https://mesh.local/ns/default/sa/catalog")),
    "for servers only": ROOT.leaf(uri(CATALOG), extended=[ExtendedKeyUsageOID.SERVER_AUTH]),
    "an authority": ROOT.leaf(uri(CATALOG), ca=True, signs=True),
    "an authority by its key usage": ROOT.leaf(uri(CATALOG), signs=True),
    "expired": ROOT.leaf(uri(CATALOG), not_before=NOW - 2 * HOUR, not_after=NOW - HOUR),
    "not yet valid": ROOT.leaf(uri(CATALOG), not_before=NOW + HOUR, not_after=NOW + 2 * HOUR),
    "issuer of the same name": FOREIGN.leaf(uri(CATALOG)),
    "self-signed": (FOREIGN.certificate, FOREIGN.key),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_client_certificates_prove_nothing(case: str, pair: Pair, tmp_path: Path) -> None:
    """Either the handshake fails, or no identity comes of it."""
    certificate, key = BAD[case]
    context = tls.client_context(write(tmp_path / "bad.pem", certificate, key), None, ROOT.pem)
    try:
        _client, server = handshake(context, pair[1])
    except ssl.SSLError:
        return
    assert tls.peer_identity(server, "mesh.local") is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_signature_by_sha1_proves_nothing(pair: Pair, tmp_path: Path) -> None:
    """Collisions can be bought; a client that is willing to show such a certificate is refused."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = reference.CertificateSigningRequestBuilder().subject_name(reference.Name([]))
    name = reference.SubjectAlternativeName([uri(CATALOG)])
    request = asked.add_extension(name, critical=True).sign(key, hashes.SHA256())
    (tmp_path / "request.pem").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "root.key").write_text(key_pem(ROOT.key))
    (tmp_path / "root.pem").write_text(ROOT.pem)
    made = subprocess.run(
        [*("openssl", "x509", "-req", "-in", "request.pem", "-sha1", "-days", "1"),
         *("-copy_extensions", "copy", "-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "7")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    weak = tmp_path / "weak.pem"
    weak.write_text(made.stdout + key_pem(key))
    der = ssl.PEM_cert_to_DER_cert(made.stdout)
    assert b"\x2a\x86\x48\xce\x3d\x04\x01" in der  # ecdsa-with-SHA1
    reckless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    reckless.check_hostname, reckless.verify_mode = False, ssl.CERT_NONE
    reckless.set_ciphers("ALL:@SECLEVEL=0")
    reckless.load_cert_chain(weak)
    try:
        _, server = handshake(reckless, pair[1])
    except ssl.SSLError:
        return
    assert tls.peer_identity(server, "mesh.local") is None


def test_name_constraints_are_obeyed(pair: Pair, tmp_path: Path) -> None:
    """An intermediate that may only name other.local cannot name mesh.local."""
    path = write(tmp_path / "bad.pem", *CONSTRAINED.leaf(uri(CATALOG)))
    path.write_text(path.read_text() + CONSTRAINED.pem)
    with pytest.raises(ssl.SSLError):
        handshake(tls.client_context(path, None, ROOT.pem), pair[1])


def test_a_foreign_server_is_refused_by_the_client(pair: Pair, tmp_path: Path) -> None:
    """The client verifies as the server does."""
    foreign = FOREIGN.svid(tmp_path / "foreign.pem", CATALOG)
    with pytest.raises(ssl.SSLError):
        handshake(pair[0], tls.server_context(foreign, None, ROOT.pem))


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    """What could never shake hands is refused when the context is made."""
    certificate, _key = ROOT.leaf(uri(CATALOG))
    path = write(tmp_path / "x.pem", certificate, ROOT.leaf()[1])
    with pytest.raises(ssl.SSLError):
        tls.server_context(path, None, ROOT.pem)


def test_a_pair_of_contexts_is_tried_out(tmp_path: Path, pair: Pair) -> None:
    """What believes itself passes; a certificate of another root does not."""
    tls.try_out(pair[1], pair[0])
    own = TestAuthority("own").svid(tmp_path / "own.pem", CATALOG)
    foreign = (make(own, None, ROOT.pem) for make in (tls.server_context, tls.client_context))
    with pytest.raises(ssl.SSLError):
        tls.try_out(*foreign)


def shown(end: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the peer has sent."""
    sent = end._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # public from 3.13 on
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in sent]


@pytest.mark.parametrize("apart", [False, True], ids=["key in the file", "key of its own"])
def test_a_certificate_that_stands_alone_is_shown_with_its_root(
    tmp_path: Path, apart: bool
) -> None:
    """Of all the roots that we believe; what stands in the file is not touched."""
    certificate, key = ROOT.leaf(uri(CATALOG))
    path, own = write(tmp_path / "own.pem", certificate, key), None
    if apart:
        own = tmp_path / "key.pem"
        own.write_text(key_pem(key))
        path.write_text(pem(certificate))
    roots = TestAuthority("other").pem + TestAuthority().pem + ROOT.pem
    ends = handshake(tls.client_context(path, own, roots), tls.server_context(path, own, roots))
    for end in ends:
        assert shown(end) == [der(certificate), der(ROOT.certificate)]
        assert tls.peer_identity(end, "mesh.local") == CATALOG


def test_a_chain_is_shown_as_it_is(tmp_path: Path) -> None:
    """Whoever issues it has decided what belongs to it: up to the root, without it."""
    between = TestAuthority("between", signed_by=ROOT)
    certificate, key = between.leaf(uri(CATALOG))
    path = write(tmp_path / "own.pem", certificate, key)
    path.write_text(path.read_text() + between.pem)
    ends = handshake(
        tls.client_context(path, None, ROOT.pem), tls.server_context(path, None, ROOT.pem)
    )
    for end in ends:
        assert shown(end) == [der(certificate), der(between.certificate)]


def test_a_context_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Nor does one that could not be made."""
    right = ROOT.svid(tmp_path / "right.pem", CATALOG)
    wrong = write(tmp_path / "wrong.pem", ROOT.leaf(uri(CATALOG))[0], ROOT.leaf()[1])
    open_before = set(Path("/proc/self/fd").iterdir())
    tls.server_context(right, None, ROOT.pem)
    with pytest.raises(ssl.SSLError):
        tls.server_context(wrong, None, ROOT.pem)
    # Less may be open: the collector comes when it likes, and closes what other tests have left.
    assert set(Path("/proc/self/fd").iterdir()) - open_before == set()


def test_no_session_is_resumed(tmp_path: Path) -> None:
    """
    A server hands out no ticket; and one from elsewhere, be it from before a root was removed or
    an identity revoked, leads to a full handshake, which judges the certificate anew.
    """
    client = tls.client_context(ROOT.svid(tmp_path / "reviews.pem", REVIEWS), None, ROOT.pem)
    own = ROOT.svid(tmp_path / "catalog.pem", CATALOG)
    ours = tls.server_context(own, None, ROOT.pem)
    generous = tls.server_context(own, None, ROOT.pem)
    generous.num_tickets = 2
    assert session_after(client, ours).has_ticket is False
    ticket = session_after(client, generous)
    assert ticket.has_ticket
    assert resumed(client, generous, ticket)  # so the ticket is one
    assert not resumed(client, ours, ticket)
    renewed = tls.server_context(own, None, TestAuthority("new").pem)
    renewed.num_tickets = 2
    with pytest.raises(ssl.SSLCertVerificationError):
        resumed(client, renewed, ticket)


def session_after(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLSession:
    """Shake hands, exchange a byte so that tickets arrive, and return the session."""
    session = _talk(client, server, None).session
    assert session is not None
    return session


def resumed(client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession) -> bool:
    reused: bool = _talk(client, server, session).session_reused
    return reused


def _talk(
    client: ssl.SSLContext, server: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLObject:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialling = client.wrap_bio(to_client, to_server, session=session)
    listening = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (dialling, listening):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    listening.write(b"x")
    assert dialling.read(1) == b"x"
    return dialling

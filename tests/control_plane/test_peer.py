"""The control plane's reading of client certificates; it must agree with the sidecar's."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from control_plane import peer
from control_plane.certificate import key_id
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.identity import tls, x509
from tests.helpers.certificates import TestAuthority, der, uri
from tests.meshproxy.identity.test_tls import BAD, ROOT

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")


def test_a_leaf_with_one_spiffe_id_is_a_peer() -> None:
    """Identity, expiry, serial and who has signed are read."""
    certificate, _key = ROOT.leaf(uri(str(CATALOG)))
    assert peer.read(der(certificate), "mesh.local") == peer.Peer(
        CATALOG,
        certificate.not_valid_after_utc.timestamp(),
        key_id(ROOT.certificate),
        f"{certificate.serial_number:x}",
    )


@pytest.mark.parametrize("case", BAD)
def test_both_readers_agree_about_every_bad_certificate(case: str) -> None:
    """What the sidecar's small reader refuses, `cryptography` refuses too, and the other way round."""
    data = der(BAD[case][0])
    sidecar = None
    with suppress(x509.CertificateError, SpiffeError):
        sidecar = tls.svid_identity(data, "mesh.local")
    plane = peer.read(data, "mesh.local")
    assert sidecar == (plane.identity if plane else None)


def test_garbage_and_plaintext_prove_nothing() -> None:
    """No certificate, no TLS, no transport: nobody."""
    assert peer.read(b"nonsense", "mesh.local") is None
    assert peer.peer_of(None, "mesh.local") is None
    assert peer.peer_of(asyncio.Transport(), "mesh.local") is None


def test_the_port_speaks_tls_13_and_hands_out_no_tickets(tmp_path: Path) -> None:
    """A client certificate is asked for and may be missing; if there is one, it is verified."""
    root = TestAuthority()
    context = peer.server_context(root.svid(tmp_path / "own.pem", str(CATALOG)), (root.pem,))
    assert context.minimum_version.name == "TLSv1_3"
    assert context.num_tickets == 0
    assert context.verify_mode.name == "CERT_OPTIONAL"

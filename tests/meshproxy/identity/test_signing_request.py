import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshproxy.identity import signing_request
from meshproxy.identity.signing_request import SigningRequestError


async def test_key_and_request_belong_together() -> None:
    """A P-256 key, and a request that it has signed."""
    pair = await signing_request.make()
    key = serialization.load_pem_private_key(pair.key.encode(), None)
    csr = x509.load_pem_x509_csr(pair.csr.encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key()


async def test_a_pair_is_read_again() -> None:
    """From the text that has one after the other, as the child writes it."""
    pair = await signing_request.make()
    assert signing_request.parse((pair.key + pair.csr).encode()) == pair


async def test_a_child_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter, or one that fails: an error with a reason, and no hanging."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SigningRequestError, match="cannot start /nowhere/python"):
        await signing_request.make()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SigningRequestError, match="no key was made"):
        await signing_request.make()


def test_the_sidecar_never_loads_cryptography() -> None:
    """Nor aiohttp, nor yaml: they are what makes a Python process large."""
    code = (
        "import sys, meshproxy.config.discovery_client\n"
        "print([m for m in ('cryptography', 'aiohttp', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

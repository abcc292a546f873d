"""
Make a key and a certificate signing request: a program that lives for a tenth of a second.

    python -P signing_request.py   →   key and request, PEM, on standard output

`cryptography` is the only good way to make them and weighs 10 MB; run in a process of its own,
it never enters the sidecar's memory.  The key crosses a pipe, and neither an argument, nor the
environment, nor a file.
"""

import sys
from typing import NamedTuple

_SECONDS = 30
_REQUEST = b"-----BEGIN CERTIFICATE REQUEST-----"


class SigningRequestError(Exception):
    """The child process that makes keys has failed; says how."""


class KeyAndRequest(NamedTuple):
    """
    Attributes:
        key: PEM (PKCS #8) of the private key.
        csr: PEM of the signing request, which proves possession of the key.
    """

    key: str
    csr: str


async def make() -> KeyAndRequest:
    """
    Make a P-256 key and its request in a child process.

    Raises:
        SigningRequestError: The child cannot be started, fails, or takes too long.
    """
    import asyncio  # in here, for the child has no use for it, and a third of its life would be this

    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", __file__),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SigningRequestError(f"cannot start {sys.executable}: {error}") from error
    try:
        async with asyncio.timeout(_SECONDS):
            output, errors = await child.communicate()
    except TimeoutError:
        raise SigningRequestError(f"no key was made within {_SECONDS} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise SigningRequestError(f"no key was made: {lines[-1] if lines else child.returncode}")
    return parse(output)


def parse(text: bytes) -> KeyAndRequest:
    """Return key and request of a PEM text that has one after the other."""
    key, mark, rest = text.partition(_REQUEST)
    return KeyAndRequest(key.decode("ascii"), (mark + rest).decode("ascii"))


def _main() -> None:
    import ctypes

    # prctl(PR_SET_DUMPABLE, 0): no core dump and no debugger (see `confinement.py`, which is not
    # imported because this file is run alone).
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import CertificateSigningRequestBuilder, Name

    key = ec.generate_private_key(ec.SECP256R1())
    # The authority decides what the certificate says; only the public key of this counts.
    csr = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, hashes.SHA256())
    sys.stdout.buffer.write(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + csr.public_bytes(serialization.Encoding.PEM)
    )


if __name__ == "__main__":
    _main()

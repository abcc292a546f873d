"""
Tokens: what a client is given so that it finds its endpoint again, and cannot find another.

    issued (4 bytes) · endpoint (8) · seal (8), in base64

`endpoint` is a keyed hash of the endpoint's name, `seal` one of all before it and of the scope.  The
key is a secret that the control plane gives to all proxies of the mesh, so any of them understands
any token, after a restart, too; who has not the secret can neither tell which address is meant
(addresses are few: without a key one would try them all) nor make a token for another endpoint.
That tokens for one endpoint look alike to who collects them is accepted: in return, the one of
5,000 that is meant is found with one look into a table.

`issued` is in seconds of the wall clock, because tokens outlive processes and cross machines.

Called from: `session`, `Cluster.resume`.   Configured by: `TrustSpec.session_secret`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

from meshproxy.contract.wire import ContractError

_ISSUED: Final = 4
_ENDPOINT: Final = 8
_SEAL: Final = 8
_LENGTH: Final = 27  # of all in base64, without its padding
_SECRET: Final = (16, 64)  # bytes, at least and at most (what BLAKE2b takes for a key)


def secret_of(text: str, where: str) -> bytes:
    """
    Return the bytes of a secret.

    Raises:
        ContractError: It is none.
    """
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    least, most = _SECRET
    if not least <= len(secret) <= most:
        raise ContractError(where, f"expected {2 * least} to {2 * most} hexadecimal digits")
    return secret


class Tokens:
    """Makes tokens and reads them."""

    __slots__ = ("_secret", "_wall")

    def __init__(self, secret: bytes, wall: Callable[[], float]) -> None:
        """`wall` tells the seconds since the epoch."""
        self._secret = secret
        self._wall = wall

    def id_of(self, endpoint: str) -> bytes:
        """Return what tokens call the endpoint of this name."""
        return self._hash(b"endpoint", _ENDPOINT, endpoint.encode())

    def make(self, endpoint: bytes, scope: str) -> bytes:
        """
        Return a token.

        Args:
            endpoint: See `id_of`.
            scope: What it counts for.
        """
        body = int(self._wall()).to_bytes(_ISSUED, "big") + endpoint
        return urlsafe_b64encode(body + self._seal(body, scope)).rstrip(b"=")

    def read(self, token: bytes, scope: str, timeout: float | None) -> bytes | None:
        """
        Return which endpoint is meant (see `id_of`), or None if the token is not ours or too old.

        Args:
            token: As a client has sent it.
            scope: What it must count for.
            timeout: Seconds that it counts; None for ever.
        """
        if len(token) != _LENGTH:
            return None
        try:
            plain = urlsafe_b64decode(token + b"=")
        except ValueError:
            return None
        body, seal = plain[:-_SEAL], plain[-_SEAL:]
        if not compare_digest(self._seal(body, scope), seal):
            return None
        issued = int.from_bytes(body[:_ISSUED], "big")
        if timeout is not None and self._wall() - issued >= timeout:
            return None
        return body[_ISSUED:]

    def _seal(self, body: bytes, scope: str) -> bytes:
        return self._hash(b"seal", _SEAL, body + scope.encode())

    def _hash(self, purpose: bytes, size: int, data: bytes) -> bytes:
        return blake2b(data, key=self._secret, digest_size=size, person=purpose).digest()

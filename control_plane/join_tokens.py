"""
Join tokens: one use, one workload, an hour.

    issued ──(a key shows it)──▶ bound to that key ──(an hour after issue)──▶ forgotten
                                  │          ▲
                                  └──────────┘ the same key again: answered again

**A token is not lost with an answer.**  A sidecar may die, or the connection break, between the use
of its token and the storing of its certificate.  So the token is bound to the key that used it
first: that key, and no other, may come again with it.  Nobody gains by that: a certificate is good
only for who holds its key, and a signing request proves that.  (The sidecar keeps the key that it
asks for on disk until it has the answer: `meshproxy/identity/certificates.py`.)

A token that comes with another key has been copied: it is refused, logged and counted.

Tokens are kept only as their SHA-256, so the state directory cannot be used to join.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from meshproxy import private_file
from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeId

from .attestation import Claim, NotAttested

log = logging.getLogger(__name__)

DEFAULT_LIFETIME = 3600.0
_MOST_TOKENS = 10_000
_MOST_ANSWERS = 10
"""For one token: a sidecar that crashes with every answer must not keep the authority busy."""


class _Token(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        key: Fingerprint of the key that has used it; empty as long as it is unused.
        answers: How often it was used.
    """

    hash: str
    workload: str
    identity: str
    expires: float
    key: str = ""
    answers: int = 0


class JoinTokens:
    """
    Tokens that let a workload in for the first time.

    They are looked through one by one and compared in constant time; there are few, because an
    expired one is dropped.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """
        Open the tokens that an earlier run has left in `path`.

        Raises:
            PrivateFileError: The file cannot be read, or others can read it.
            ContractError: It is damaged.
        """
        self._path = path
        self._clock = clock
        data = private_file.read(path)
        self._tokens = [] if data is None else wire.decode(data, list[_Token])

    def __len__(self) -> int:
        """Return how many are unused."""
        return sum(1 for token in self._tokens if not token.key)

    def issue(
        self, workload: str, identity: SpiffeId, lifetime: float = DEFAULT_LIFETIME
    ) -> tuple[str, float]:
        """
        Return a new token and when it expires, in seconds since the epoch.

        Raises:
            NotAttested: There are too many.
            PrivateFileError: It cannot be kept.
        """
        self._drop_expired()
        if len(self._tokens) >= _MOST_TOKENS:
            raise NotAttested("too-many-tokens", "Too many join tokens were issued.", retry=True)
        token = secrets.token_urlsafe(32)
        expires = self._clock() + lifetime
        self._keep(
            [
                *self._tokens,
                _Token(
                    hash=_hash(token), workload=workload, identity=str(identity), expires=expires
                ),
            ]
        )
        log.info("join token issued for %s (%s), good for %.0f s", workload, identity, lifetime)
        return token, expires

    async def attest(self, claim: Claim) -> str:
        """Use the token of a claim, for the key of the claim."""
        presented = _hash(claim.token or "")
        self._drop_expired()
        found = [t for t in self._tokens if hmac.compare_digest(t.hash, presented)]
        if not found:
            raise NotAttested(
                "token-unknown", "The join token is not known: it has expired, or never was."
            )
        token = found[0]
        if token.workload != claim.workload or token.identity != str(claim.identity):
            # Not used up: whoever it belongs to may still come.
            raise NotAttested(
                "token-of-another", f"The join token was not issued for {claim.workload}."
            )
        if token.key and not hmac.compare_digest(token.key, claim.key):
            raise NotAttested(
                "token-used", "The join token has been used, by somebody with another key."
            )
        if token.answers >= _MOST_ANSWERS:
            raise NotAttested("token-used", "The join token has been used too often.")
        used = msgspec.structs.replace(token, key=claim.key, answers=token.answers + 1)
        self._keep([used if t is token else t for t in self._tokens])
        return (
            "token" if not token.answers else f"token, for the same key as {token.answers} before"
        )

    def _drop_expired(self) -> None:
        now = self._clock()
        if any(token.expires <= now for token in self._tokens):
            self._keep([token for token in self._tokens if token.expires > now])

    def _keep(self, tokens: list[_Token]) -> None:
        private_file.write(self._path, wire.encode(tokens))
        self._tokens = tokens


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

"""
Attestation: who may get which identity.

    first contact   a join token: one use, one workload, an hour        (one machine, a VM)
    renewal         the current certificate, of that very identity

Each way of proving is an `Attestor`; in a cluster a Kubernetes TokenReview stands beside these.
A token is kept only as its SHA-256, so the state directory cannot be used to join.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from meshproxy import private_file
from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeId

log = logging.getLogger(__name__)

DEFAULT_LIFETIME = 3600.0
_MOST_TOKENS = 10_000


class NotAttested(Exception):  # noqa: N818 - a verdict
    """
    Who asks has not proved who it is.

    Attributes:
        code: Stable name of the reason.
        reason: One plain sentence.
        retry: Whether asking again, unchanged, can help.
    """

    def __init__(self, code: str, reason: str, *, retry: bool = False) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.retry = retry


class Claim(NamedTuple):
    """
    What is asked for, and what is shown for it.

    Attributes:
        workload: ``namespace/name``.
        identity: What that workload is entitled to.
        token: What was handed over, or None.
        proved: What the client certificate of the connection proves, or None.
    """

    workload: str
    identity: SpiffeId
    token: str | None
    proved: SpiffeId | None


class Attestor(Protocol):
    """One way of proving who asks."""

    def attest(self, claim: Claim) -> str:
        """
        Return how the claim was proved, for the audit log.

        Raises:
            NotAttested: It was not.
        """
        ...


class Renewal:
    """The current certificate proves who asks for the next one."""

    def attest(self, claim: Claim) -> str:
        if claim.proved is None:
            raise NotAttested(
                "no-credential",
                "A join token or a client certificate is needed to get a certificate.",
            )
        if claim.proved != claim.identity:
            raise NotAttested(
                "wrong-identity",
                f"The certificate is that of {claim.proved}, but {claim.workload} runs as"
                f" {claim.identity}.",
            )
        return "certificate"


class _Token(Struct, frozen=True, kw_only=True):
    hash: str
    workload: str
    identity: str
    expires: float


class JoinTokens:
    """
    Tokens that let a workload in for the first time.

    They are looked through one by one and compared in constant time; there are few, because a
    used or expired one is dropped.
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
        return len(self._tokens)

    def issue(
        self, workload: str, identity: SpiffeId, lifetime: float = DEFAULT_LIFETIME
    ) -> tuple[str, float]:
        """
        Return a new token and when it expires, in seconds since the epoch.

        Raises:
            NotAttested: There are too many unused ones.
            PrivateFileError: It cannot be kept.
        """
        self._drop_expired()
        if len(self._tokens) >= _MOST_TOKENS:
            raise NotAttested("too-many-tokens", "Too many join tokens are unused.", retry=True)
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

    def attest(self, claim: Claim) -> str:
        """Use up the token of a claim."""
        presented = _hash(claim.token or "")
        self._drop_expired()
        found = [t for t in self._tokens if hmac.compare_digest(t.hash, presented)]
        if not found:
            raise NotAttested(
                "token-unknown",
                "The join token is not known: it was used, has expired, or never was.",
            )
        token = found[0]
        if token.workload != claim.workload or token.identity != str(claim.identity):
            # Not used up: whoever it belongs to may still come.
            raise NotAttested(
                "token-of-another", f"The join token was not issued for {claim.workload}."
            )
        self._keep([t for t in self._tokens if t is not token])
        return "token"

    def _drop_expired(self) -> None:
        now = self._clock()
        if any(token.expires <= now for token in self._tokens):
            self._keep([token for token in self._tokens if token.expires > now])

    def _keep(self, tokens: list[_Token]) -> None:
        private_file.write(self._path, wire.encode(tokens))
        self._tokens = tokens


class RateLimit:
    """
    So many certificates per workload and period: a sidecar that loops, or a stolen certificate,
    must not keep the authority busy.  A token bucket for each of the workloads seen last; replicas
    that share an identity do not share a bucket, and nobody can name a workload of others.
    """

    def __init__(
        self, burst: int = 10, period: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._rate = burst / period
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, workload: str) -> None:
        """
        Count one certificate.

        Raises:
            NotAttested: It is one too many.
        """
        now = self._clock()
        left, seen = self._buckets.pop(workload, (float(self._burst), now))
        left = min(self._burst, left + (now - seen) * self._rate)
        self._buckets[workload] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._buckets) > _MOST_TOKENS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise NotAttested(
                "rate-limited", f"{workload} asked for too many certificates.", retry=True
            )


class Attestation:
    """Asks the attestor that fits what was shown."""

    def __init__(self, tokens: Attestor, renewal: Attestor, limit: RateLimit) -> None:
        self._tokens = tokens
        self._renewal = renewal
        self._limit = limit

    def attest(self, claim: Claim) -> str:
        """
        Return how the claim was proved.

        Raises:
            NotAttested: It was not, or comes too often.
        """
        attestor = self._renewal if claim.token is None else self._tokens
        # Only a proven identity counts against its limit: others must not be able to use it up.
        if attestor is self._renewal and claim.proved == claim.identity:
            self._limit.check(claim.workload)
        return attestor.attest(claim)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

"""
The sidecar's own certificate: hold it, keep it fresh, believe the right roots.

    nothing ──(token)──▶ held ──(half of its life)──▶ renewing ──▶ held …
                          ▲                              │
                          └────── refused, no answer ────┘  (the old one serves on; try again)

Key and chain lie in one file of the state directory, so that both are replaced at one stroke and
a restarted sidecar can serve although its control plane is away.  A renewal or a change of the
trust bundle replaces both contexts at once; connections that exist are not touched.  When the
certificate has ended there are no contexts any more: nobody is dialled, and nobody let in.

**First contact survives a crash.**  The authority binds a join token to the key that it was shown
with.  So that key lies in the state directory from before it is shown until the certificate has
been stored, and whoever is started in between asks with it once more.

**Whom to believe** the answer to a signing request says only at first contact.  Later the discovery
stream alone does: an answer that was under way when the bundle changed is older than the stream.
"""

import asyncio
import hashlib
import logging
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from meshproxy import private_file
from meshproxy.backoff import Backoff
from meshproxy.contract.discovery import SigningAnswer

from . import signing_request, tls, x509
from .signing_request import KeyAndRequest

log = logging.getLogger(__name__)

Sign = Callable[[str], Awaitable[SigningAnswer]]
"""Hands a signing request to the authority; raises `CannotSign`."""

_IDENTITY_FILE = "identity.pem"
_ROOTS_FILE = "roots.pem"
_PENDING_FILE = "pending.pem"
# A laptop that slept, or a clock that was set, is noticed within this many seconds.
_LONGEST_NAP = 5.0
_WORRYING = 0.75
"""Share of a certificate's life after which a renewal that fails is more than a nuisance."""
_TRIES = 20
"""A short life needs quick retries: the waits between them grow to this part of it."""
_WAITS = (1.0, 15.0)
"""Bounds of the longest wait, in seconds."""
_EARLY_TRIES = 40
"""How often a certificate that is not valid by our clock is tried before another is asked for."""


class CannotSign(Exception):  # noqa: N818 - a fact about the authority, not a fault of ours
    """No certificate was to be had; says why in one sentence."""


class NotNowError(x509.CertificateError):
    """A certificate is not valid at this time; that may be the clock's fault, and not the key's."""


class Certificates:
    """
    Key, chain and roots in force.

    Attributes:
        identity: The SPIFFE ID that the certificate must carry.
        roots: PEM text of the trust bundle.
        not_after: When the certificate expires, in seconds since the epoch; 0 without one.
        last_error: Why the last attempt to renew failed, or None.
        renewals: How many certificates have been received.
        failures: How many attempts have failed.
        on_changed: Called after each change of certificate or roots.
        renewed: Set when the certificate in use now has been replaced by another, for which another
            event stands here then.
    """

    def __init__(
        self,
        identity: str,
        state: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        make: Callable[[], Awaitable[KeyAndRequest]] = signing_request.make,
    ) -> None:
        self.identity = identity
        self.roots = ""
        self.not_after = 0.0
        self.last_error: str | None = None
        self.renewals = 0
        self.failures = 0
        self._state = state
        self._clock = clock
        self._pause = pause
        self._draw = draw
        self._make = make
        self._certificate: Path | None = None
        self._key: Path | None = None
        self._facts: x509.Facts | None = None
        self._renew_at = 0.0
        self._obtained = 0.0
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None
        self._early: tuple[str, SigningAnswer, int] | None = None  # key, answer, tries left
        self.on_changed: Callable[[], None] = _nobody
        self._replaced = asyncio.Event()
        self.renewed = asyncio.Event()

    def __repr__(self) -> str:
        left = self.not_after - self._clock()
        return f"<Certificates {self.identity} {'ready' if self.ready else 'not ready'}, {left:.0f} s left>"

    # What connections use ---------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is a certificate that peers will accept today, and roots to judge them."""
        return self._server is not None and self._clock() < self.not_after

    @property
    def server(self) -> ssl.SSLContext | None:
        """Context for accepting peers, or None; ask anew for each connection."""
        return self._server if self.ready else None

    @property
    def client(self) -> ssl.SSLContext | None:
        """Context for dialling peers, or None; ask anew for each connection."""
        return self._client if self.ready else None

    @property
    def file(self) -> Path | None:
        """The file with key and chain, for other contexts; None without a valid certificate."""
        return self._certificate if self.ready else None

    @property
    def files(self) -> tuple[Path | None, Path | None]:
        """Where certificate and key in use lie, for another process of ours; the key may be None."""
        return self._certificate, self._key

    @property
    def age(self) -> float:
        """Seconds since the certificate in use was received; 0 without one."""
        return max(0.0, self._clock() - self._obtained) if self._obtained else 0.0

    @property
    def worry(self) -> str | None:
        """What an operator should know while all still goes well: it will not be renewed in time."""
        left, life = self.not_after - self._clock(), self.not_after - self._obtained
        if self.last_error is None or left <= 0 or left > life * (1 - _WORRYING):
            return None
        return f"certificate not renewed, it ends in {left:.0f} s: {self.last_error}"

    async def until_ready(self) -> None:
        while not self.ready:
            self._replaced.clear()
            await self._replaced.wait()

    def described(self) -> dict[str, Any]:
        """
        Return what an operator may know of certificate and roots: facts, never a key.

        Times are in seconds since the epoch; `certificate` is None as long as there is none.
        """
        facts = self._facts
        return {
            "identity": self.identity,
            "certificate": None
            if facts is None
            else {
                "identity": ", ".join(facts.uris),
                "serial": facts.serial,
                "issuer": facts.issuer,
                "not_before": facts.not_before,
                "not_after": facts.not_after,
            },
            "renew_at": self._renew_at or None,
            "last_error": self.last_error,
            "renewals": self.renewals,
            "failures": self.failures,
            "roots": [_described_root(der) for der in x509.chain(self.roots)],
        }

    # Where they come from ---------------------------------------------------------------------

    def load_files(self, certificate: Path, key: Path) -> None:
        """
        Use a certificate that somebody else keeps fresh (a proxy with a static configuration).

        Raises:
            CertificateError: It is not a certificate of our identity, or not that of the key.
        """
        self._use(certificate, key, self._clock())

    def follow(self, certificate: Path | None, key: Path | None, roots: str) -> None:
        """
        Use what another process of ours keeps fresh (a worker: what its parent does).

        Raises:
            CertificateError: It cannot be used; the old ones stay.
        """
        if certificate is None:
            self.trust((roots,) if roots else ())
            return
        before, self.roots = self.roots, roots
        try:
            self._use(certificate, key, self._clock())
        except x509.CertificateError:
            self.roots = before
            raise

    def load_cache(self) -> bool:
        """Use what an earlier run has left in the state directory; say whether it was usable."""
        if self._state is None:
            return False
        path = self._state / _IDENTITY_FILE
        try:
            private_file.directory(self._state)
            if private_file.read(path) is None:
                return False
            self.roots = (private_file.read(self._state / _ROOTS_FILE) or b"").decode("ascii")
            self._use(path, None, path.stat().st_mtime)
        except (private_file.PrivateFileError, x509.CertificateError, ValueError) as error:
            log.warning("certificate cache not used: %s", error)
            return False
        log.info("certificate of %s loaded from %s", self.identity, path)
        return True

    def install(self, key: str, answer: SigningAnswer) -> None:
        """
        Replace certificate and roots by what the authority answered, on disk and in force.

        Raises:
            CertificateError: The answer is not what was asked for; the old ones stay.
            PrivateFileError: The state directory cannot be written; the old ones stay.
        """
        if self._state is None:
            raise x509.CertificateError("a certificate from files is not renewed")
        directory = private_file.directory(self._state)
        self._check(x509.leaf(answer.chain))
        roots = self.roots if self.ready else "".join(answer.roots)
        # Try the pair in a file of its own: the one in use stays whole if they do not match.
        # (And of its own for each process: in a hot restart two may renew at once.)
        candidate = directory / f"{_IDENTITY_FILE}.{os.getpid()}.new"
        private_file.write(candidate, (key + answer.chain).encode("ascii"))
        try:
            server, client = _contexts(candidate, None, roots)
            tls.try_out(server, client)
            private_file.write(directory / _ROOTS_FILE, roots.encode("ascii"))
            candidate.replace(directory / _IDENTITY_FILE)
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", None) or error.reason or str(error)
            raise x509.CertificateError(
                f"the roots that we believe do not vouch for the certificate received: {why}"
            ) from error
        finally:
            candidate.unlink(missing_ok=True)
        (directory / _PENDING_FILE).unlink(missing_ok=True)
        self.roots = roots
        self._use(directory / _IDENTITY_FILE, None, self._clock())
        self.renewed.set()
        self.renewed = asyncio.Event()

    def trust(self, roots: Iterable[str]) -> None:
        """
        Believe these roots (PEM) and no others, for every connection from now on.

        Raises:
            CertificateError: They are not certificates; the old ones stay.
        """
        text = "".join(root if root.endswith("\n") else f"{root}\n" for root in roots)
        if text == self.roots:
            return
        if self._certificate is not None:
            self._make_contexts(self._certificate, self._key, text)
        else:
            _check_roots(text)
        self.roots = text
        self._keep_roots()
        self._replaced.set()
        self.on_changed()

    def _make_contexts(self, certificate: Path, key: Path | None, roots: str) -> None:
        self._server, self._client = _contexts(certificate, key, roots)

    def _keep_roots(self) -> None:
        """Let a restart find its control plane, even without the snapshot that the roots came with."""
        if self._state is None or self._certificate != self._state / _IDENTITY_FILE:
            return
        try:
            private_file.write(self._state / _ROOTS_FILE, self.roots.encode("ascii"))
        except private_file.PrivateFileError as error:
            log.warning("the trust bundle is not kept for a restart: %s", error)

    def _use(self, certificate: Path, key: Path | None, obtained: float) -> None:
        try:
            facts = self._check(x509.leaf(certificate.read_text("ascii")))
        except OSError as error:
            raise x509.CertificateError(f"{certificate}: cannot be read: {error}") from error
        if self.roots:
            self._make_contexts(certificate, key, self.roots)
        self._certificate, self._key = certificate, key
        self._facts = facts
        self._obtained = obtained
        self.not_after = facts.not_after
        # Half of what was left when we got it: not_before lies in the past, for slow clocks.
        # And not exactly half (45 to 55 %): sidecars that were started together, or came back
        # together when the authority did, would ask it for ever after in the same second.
        share = 0.5 + 0.1 * (self._draw() - 0.5)
        self._renew_at = obtained + (facts.not_after - obtained) * share
        self._replaced.set()
        self.on_changed()

    def _check(self, der: bytes) -> x509.Facts:
        facts = x509.read(der)
        if facts.uris != (self.identity,) or facts.authority:
            found = ", ".join(facts.uris) or "none"
            raise x509.CertificateError(
                f"expected a certificate of {self.identity}, found one of {found}"
            )
        now = self._clock()
        if facts.not_after <= now:
            raise NotNowError(
                f"the certificate of {self.identity} has expired, {_span(now - facts.not_after)} ago"
                " by this machine's clock, which may be wrong"
            )
        if facts.not_before > now:
            raise NotNowError(
                f"the certificate of {self.identity} is not valid yet, for"
                f" {_span(facts.not_before - now)} more by this machine's clock, which may be wrong"
            )
        return facts

    # Keeping it fresh -------------------------------------------------------------------------

    async def keep(self, sign: Sign) -> None:
        """Get a certificate if there is none, renew it at half its life; runs until cancelled."""
        backoff = Backoff(draw=self._draw)
        while True:
            while (left := self._renew_at - self._clock()) > 0:
                await self._pause(min(left, _LONGEST_NAP))
            try:
                await self._renew(sign)
            except (
                CannotSign,
                signing_request.SigningRequestError,
                x509.CertificateError,
                private_file.PrivateFileError,
            ) as error:
                if str(error) != self.last_error:
                    log.warning("no new certificate for %s: %s", self.identity, error)
                self.last_error = str(error)
                self.failures += 1
                shortest, longest = _WAITS
                life = self.not_after - self._obtained
                backoff.cap = min(max(life / _TRIES, shortest), longest) if life else longest
                await self._pause(backoff.next())
            else:
                self.last_error = None
                backoff.reset()

    async def _renew(self, sign: Sign) -> None:
        if self._early is not None:
            self._install_early(*self._early)
        else:
            pair = await self._first_pair() if not self.ready else await self._make()
            answer = await sign(pair.csr)
            try:
                self.install(pair.key, answer)
            except NotNowError:
                self._early = (pair.key, answer, _EARLY_TRIES)
                raise
            except x509.CertificateError:
                self._forget_pair()  # with another key it may be better
                raise
        self.renewals += 1
        left = self.not_after - self._clock()
        log.info("certificate of %s received, good for %.0f s", self.identity, left)

    def _install_early(self, key: str, answer: SigningAnswer, tries: int) -> None:
        """
        Try again what was not valid by our clock: that may have been set right.

        To ask again would use up the join token, and get what is no better.
        """
        self._early = (key, answer, tries - 1) if tries > 1 else None
        self.install(key, answer)
        self._early = None

    async def _first_pair(self) -> signing_request.KeyAndRequest:
        """Return what an earlier run, or attempt, has asked with; or a pair that is kept for the next."""
        if self._state is None:
            return await self._make()
        path = private_file.directory(self._state) / _PENDING_FILE
        if (kept := private_file.read(path)) is not None:
            return signing_request.parse(kept)
        pair = await self._make()
        private_file.write(path, (pair.key + pair.csr).encode("ascii"))
        return pair

    def _forget_pair(self) -> None:
        if self._state is not None:
            (self._state / _PENDING_FILE).unlink(missing_ok=True)


def _span(seconds: float) -> str:
    # Not finer than it matters: what is the same each time is logged once.
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _nobody() -> None:
    """Most proxies are one process: nobody else has to be told."""


def _contexts(
    certificate: Path, key: Path | None, roots: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    try:
        return (
            tls.server_context(certificate, key, roots),
            tls.client_context(certificate, key, roots),
        )
    except (ssl.SSLError, ValueError, OSError) as error:
        _check_roots(roots)  # are they to blame?
        raise x509.CertificateError(f"{certificate}: not usable with its key: {error}") from error


def _described_root(der: bytes) -> dict[str, Any]:
    facts = x509.read(der)
    return {
        "subject": facts.subject,
        "serial": facts.serial,
        "sha256": hashlib.sha256(der).hexdigest(),
        "not_before": facts.not_before,
        "not_after": facts.not_after,
    }


def _check_roots(roots: str) -> None:
    try:
        tls.plane_context(roots)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise x509.CertificateError(f"trust bundle: expected PEM certificates: {error}") from error

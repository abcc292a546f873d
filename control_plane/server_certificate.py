"""
The control plane's own certificate: issued by its own authority, renewed at half its life.

A listening socket keeps the context that it was opened with, and a context forgets no root that it
was given.  So each change makes a new context, and the one of the socket hands every handshake over
to the newest: OpenSSL asks for that when it has read the ClientHello (`sni_callback`), with a server
name or without.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId

from . import peer
from .authority import Authority, AuthorityError

log = logging.getLogger(__name__)

# A clock that was set is noticed within this many seconds.
_LONGEST_NAP = 30.0


class ServerCertificate:
    """
    Attributes:
        context: For the discovery port; new connections get the newest certificate, and are
            judged by the newest roots.
    """

    def __init__(
        self,
        authority: Authority,
        identity: SpiffeId,
        path: Path,
        *,
        lifetime: timedelta = timedelta(hours=24),
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._authority = authority
        self._identity = identity
        self._path = path
        self._lifetime = lifetime
        self._clock = clock
        self._pause = pause
        self._renew_at = 0.0
        self._issuer = ""
        self._current = self._issue()
        self.context = self._current
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    async def keep(self) -> None:
        """Renew at half the certificate's life; runs until cancelled."""
        while True:
            while (left := self._renew_at - self._clock()) > 0:
                await self._pause(min(left, _LONGEST_NAP))
            if not self._renew():
                await self._pause(_LONGEST_NAP)

    def follow(self) -> None:
        """The authority believes other roots, or signs with another key."""
        if self._issuer != self._authority.signer.issuer_id:
            self._renew()
        else:
            self._current = peer.server_context(self._path, self._authority.roots())

    def _renew(self) -> bool:
        try:
            self._current = self._issue()
        except (private_file.PrivateFileError, AuthorityError, OSError) as error:
            log.error("the control plane's certificate was not renewed: %s", error)
            return False
        return True

    def _issue(self) -> ssl.SSLContext:
        key, signed = self._authority.issue(self._identity, self._lifetime)
        private_file.write(self._path, (key + signed.chain).encode("ascii"))
        now = self._clock()
        self._renew_at = now + (signed.not_after - now) / 2
        self._issuer = self._authority.signer.issuer_id
        return peer.server_context(self._path, self._authority.roots())

"""The control plane's own certificate: issued by its own authority, renewed at half its life."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId

from . import peer
from .authority import Authority

log = logging.getLogger(__name__)

# A clock that was set is noticed within this many seconds.
_LONGEST_NAP = 30.0


class ServerCertificate:
    """
    Attributes:
        context: For the discovery port; new connections get the newest certificate.
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
        self._issue()
        self.context = peer.server_context(path, authority.roots())

    async def keep(self) -> None:
        """Renew at half the certificate's life; runs until cancelled."""
        while True:
            while (left := self._renew_at - self._clock()) > 0:
                await self._pause(min(left, _LONGEST_NAP))
            try:
                self._issue()
                self.context.load_cert_chain(self._path)
            except (private_file.PrivateFileError, OSError) as error:
                log.error("the control plane's certificate was not renewed: %s", error)
                await self._pause(_LONGEST_NAP)

    def _issue(self) -> None:
        key, signed = self._authority.issue(self._identity, self._lifetime)
        private_file.write(self._path, (key + signed.chain).encode("ascii"))
        now = self._clock()
        self._renew_at = now + (signed.not_after - now) / 2

"""
Identities that are denied, whatever they can show.

A certificate cannot be called back; but the mesh can refuse to listen to whoever shows it.  A denied
identity gets no certificate and no configuration, its streams end at once, and every proxy is told,
with the trust bundle, to cut its connections and to accept none.  That holds until it is lifted.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from meshproxy import private_file
from meshproxy.contract import wire
from meshproxy.contract.spiffe import SpiffeId

log = logging.getLogger(__name__)


class Revocation(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        since: Seconds since the epoch.
        reason: What the operator wrote; may be empty.
    """

    identity: str
    since: float
    reason: str = ""


class Revocations:
    """
    Attributes:
        on_changed: Called after each change.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """
        Open what earlier runs have left.

        Raises:
            PrivateFileError: The file cannot be read, or others can read it.
            ContractError: It is damaged.
        """
        self.on_changed: Callable[[], None] = _nobody
        self._path = path
        self._clock = clock
        data = private_file.read(path)
        entries = [] if data is None else wire.decode(data, list[Revocation])
        self._entries = {entry.identity: entry for entry in entries}

    def __contains__(self, identity: object) -> bool:
        return str(identity) in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Revocation]:
        return [entry for _identity, entry in sorted(self._entries.items())]

    def identities(self) -> tuple[str, ...]:
        """Return what proxies are told."""
        return tuple(sorted(self._entries))

    def revoke(self, identity: SpiffeId, reason: str = "") -> bool:
        """
        Deny an identity from now on; say whether that is new.

        Raises:
            PrivateFileError: It could not be written down, and does not hold.
        """
        if identity in self:
            return False
        entry = Revocation(identity=str(identity), since=self._clock(), reason=reason)
        self._keep({**self._entries, entry.identity: entry})
        log.warning("identity %s revoked: %r", identity, reason)
        return True

    def lift(self, identity: SpiffeId) -> bool:
        """
        Deny an identity no longer; say whether it was denied.

        Raises:
            PrivateFileError: It could not be written down, and still is denied.
        """
        if identity not in self:
            return False
        self._keep({name: e for name, e in self._entries.items() if name != str(identity)})
        log.warning("identity %s is no longer revoked", identity)
        return True

    def _keep(self, entries: dict[str, Revocation]) -> None:
        private_file.write(self._path, wire.encode(list(entries.values())))
        self._entries = entries
        self.on_changed()


def _nobody() -> None:
    """Nobody wants to know yet."""

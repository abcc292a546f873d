"""
A rotation, guided: when may it go on, and who keeps it from going on?

    spreading   until every proxy with a living certificate has acknowledged the new root.  Of a
                proxy that is away nobody knows what it believes: it is waited for until it comes
                back or its certificate has ended, or the operator says to go on without.
    renewing    until the last certificate of the old one has ended.  Proxies renew at half of a
                certificate's life, so long before.

Nothing here depends on this process living on: the authority keeps the phase on disk, the ledger
which certificates are out, and proxies that come back say what they hold.  So the operator who
began a rotation need not stay; `meshctl certs` shows how far it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from meshproxy.private_file import PrivateFileError

from .authority import Authority, AuthorityError, RefusedError, What
from .ledger import Entry
from .signer import SignerError
from .snapshots import Proxy, State

log = logging.getLogger(__name__)

LOOK = 0.5
"""Seconds between two looks at whether a rotation may go on, and whether `roots.pem` has changed."""


class Holder(NamedTuple):
    """
    A workload whose proxy has, or has had, a certificate.

    Attributes:
        believes: It has acknowledged the trust bundle in force.
        issuer: Name of the key that signed its certificate.
        not_after: When that ends, in seconds since the epoch.
        problem: Why it has not obeyed its newest configuration, if it said so.
    """

    workload: str
    connected: bool
    believes: bool
    issuer: str
    serial: str
    not_after: float
    problem: str = ""


class Lag(NamedTuple):
    """Somebody whom a rotation waits for, and why."""

    workload: str
    away: bool
    reason: str


def holders(
    issued: Mapping[str, Entry],
    proxies: Mapping[str, Proxy],
    entitled: Callable[[str], bool],
    trust: str,
) -> list[Holder]:
    """
    Return who holds certificates, as far as the ledger and the connected proxies tell.

    Args:
        issued: The last certificate of each workload.
        proxies: Those that have been connected.
        entitled: Whether there still is such a workload.
        trust: Version of the trust bundle in force.
    """
    found = []
    for workload in sorted({*issued, *proxies}):
        if not entitled(workload):
            continue  # it will get no certificate again, and no configuration
        proxy, entry = proxies.get(workload), issued.get(workload)
        if proxy is not None and proxy.state is not State.DISCONNECTED:
            # What it shows counts: of the certificate issued last nobody knows whether it arrived.
            problem = f"{proxy.path} {proxy.reason}".strip()
            found.append(
                Holder(
                    workload,
                    True,
                    proxy.trust == trust,
                    proxy.certificate_issuer,
                    proxy.certificate_serial,
                    proxy.certificate_not_after or 0.0,
                    problem if proxy.state is State.REFUSED else "",
                )
            )
        elif entry is not None:
            believed = proxy is not None and proxy.trust == trust
            found.append(
                Holder(workload, False, believed, entry.issuer, entry.serial, entry.not_after)
            )
    return found


class Guide:
    """Drives the rotations of one authority."""

    def __init__(
        self,
        authority: Authority,
        holders: Callable[[], Iterable[Holder]],
        lifetime: Callable[[], timedelta],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._holders = holders
        self._lifetime = lifetime
        self._clock = clock

    async def run(self) -> None:
        """Go on whenever that is possible; runs until cancelled."""
        while True:
            try:
                self.look()
            except (PrivateFileError, AuthorityError, SignerError, OSError) as error:
                log.error("the rotation cannot go on: %s", error)
            except Exception:  # a mistake of ours must not end the control plane
                log.exception("the rotation cannot go on")
            await asyncio.sleep(LOOK)

    def look(self) -> None:
        """
        Obey a changed `roots.pem`, and take the next step if nobody lags.

        Raises:
            PrivateFileError: A step could not be written down, and was not taken.
        """
        self._authority.reread()
        rotation = self._authority.rotation
        if rotation is None or self.lagging():
            return
        if rotation.phase == "switching":
            self._authority.carry_on()
        elif rotation.phase == "spreading":
            self._authority.switch(self._lifetime())
        elif self._clock() >= rotation.until:
            self._authority.finish()

    def lagging(self) -> list[Lag]:
        """Return whom the rotation under way waits for."""
        rotation, now = self._authority.rotation, self._clock()
        if rotation is None or rotation.phase == "switching":
            return []
        living = [holder for holder in self._holders() if holder.not_after > now]
        if rotation.phase == "spreading":
            return [
                Lag(holder.workload, not holder.connected, _why(holder, now))
                for holder in living
                if not holder.believes
            ]
        current = self._authority.signer.issuer_id
        return [
            Lag(
                holder.workload,
                not holder.connected,
                f"holds a certificate of the {'new' if rotation.back else 'old'} one",
            )
            for holder in living
            if holder.issuer != current
        ]

    # What an operator asks for ----------------------------------------------------------------

    def begin(self, what: What) -> None:
        """
        Begin a rotation.

        Raises:
            RefusedError: It cannot be begun now; says why.
            PrivateFileError: It could not be written down.
        """
        self._authority.begin(what)

    def skip_away(self) -> None:
        """
        Go on without the proxies that are away.

        Raises:
            RefusedError: It would not help, or there is nothing to go on with; says why.
            PrivateFileError: It could not be written down.
        """
        rotation = self._authority.rotation
        if rotation is None:
            raise RefusedError("no rotation is under way")
        if rotation.phase != "spreading":
            raise RefusedError("the new one signs already; the old one is forgotten when its last"
                               " certificate has ended, and nobody can hurry that")  # fmt: skip
        waiting = [lag for lag in self.lagging() if not lag.away]
        if waiting:
            raise RefusedError(f"{waiting[0].workload} is here and {waiting[0].reason}; to sign with"
                               " a root that it does not believe would cut it off")  # fmt: skip
        self._authority.switch(self._lifetime())

    def abort(self) -> None:
        """
        Take the rotation back.

        Raises:
            RefusedError: There is none, or it is being taken back.
            PrivateFileError: It could not be written down.
        """
        self._authority.abort(self._lifetime())

    def status(self) -> dict[str, Any] | None:
        """Return how far the rotation under way is, or None."""
        rotation = self._authority.rotation
        if rotation is None:
            return None
        return {
            "what": rotation.what,
            "phase": rotation.phase,
            "aborted": rotation.back,
            "started_at": rotation.started,
            "old_ends_at": rotation.until or None,
            "lagging": [lag._asdict() for lag in self.lagging()],
        }


def _why(holder: Holder, now: float) -> str:
    if not holder.connected:
        return f"is away; its certificate ends in {holder.not_after - now:.0f} s"
    said = f": it refuses its configuration, {holder.problem}" if holder.problem else ""
    return f"has not acknowledged the new root{said}"

"""
Who was denied what, and by which rule: for the operator, never for the caller.

A denied caller is told an opaque id and nothing else: neither whether a policy named it nor what
another path would have been answered.  The operator finds the rule by that id, in the log and under
`/denials` of the admin port; the last thousand are kept.

Whoever is denied can ask again as fast as it likes, so the log gets a few lines a second and then the
number of those that were left out.  All are counted (`mesh_authorization_denied_total`).

What an AUDIT policy would have denied passes, so nobody is told an id of it; it is logged in the same
way, with lines of its own.
"""

import logging
from collections import deque
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, NamedTuple

from meshproxy.message import RequestHead

log = logging.getLogger("meshproxy.authorization")

KEPT: Final = 1_000
LONGEST: Final = 512
"""Characters that are kept of anything that a caller chooses: a thousand paths may be 16 MB long."""
LINES_PER_SECOND: Final = 10
_NOBODY: Final = "an unknown caller"


class Denial(NamedTuple):
    """
    One request or connection that was not allowed.

    Attributes:
        id: What the caller was told.
        at: Seconds since 1970.
        source: SPIFFE ID of the caller, or empty.
        method: Empty for a connection.
        policy: ``namespace/name``; empty where no rule allowed it.
        rule: Its name, or number.
        reason: What was wrong with its token, where that was it.
    """

    id: str
    at: float
    source: str
    method: str
    authority: str
    path: str
    policy: str
    rule: str
    reason: str


class _Lines:
    """So many lines a second, and then how many were left out."""

    def __init__(self, now: Callable[[], float], left_out: str) -> None:
        self._now = now
        self._words = left_out
        self._second = 0.0
        self._lines = 0
        self._left_out = 0

    def room(self) -> bool:
        """Say whether there may be one more; count those that may not be."""
        now = self._now()
        if now - self._second >= 1.0:
            if self._left_out:
                log.warning(self._words, self._left_out)
            self._second, self._lines, self._left_out = now, 0, 0
        if self._lines >= LINES_PER_SECOND:
            self._left_out += 1
            return False
        self._lines += 1
        return True


class Denials:
    """The last ones."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._wall = wall
        self._kept: deque[Denial] = deque(maxlen=KEPT)
        self._lines = _Lines(now, "%d more were denied in the meantime")
        self._audits = _Lines(now, "%d more would have been denied in the meantime")

    def note(
        self,
        source: str,
        *,
        method: str = "",
        authority: str = "",
        path: str = "",
        policy: str = "",
        rule: str = "",
        reason: str = "",
    ) -> str:
        """Remember and log a denial; return its id."""
        method, authority, path, reason = map(_shortened, (method, authority, path, reason))
        denial = Denial(
            token_hex(8), self._wall(), source, method, authority, path, policy, rule, reason
        )
        self._kept.append(denial)
        self._log(denial)
        return denial.id

    def found(self, prefix: str = "") -> list[dict[str, Any]]:
        """Return the newest first; of one id, if it is given (its beginning is enough)."""
        return [one._asdict() for one in reversed(self._kept) if one.id.startswith(prefix)]

    def audit(self, source: str, policy: str, rule: str, head: RequestHead | None) -> None:
        """Log what a policy would have denied, were it not AUDIT: a request, or a connection."""
        if not self._audits.room():
            return
        what = "connection"
        if head is not None:
            path = head.path.partition(b"?")[0]  # a query may hold secrets
            what = b" ".join((head.method, head.authority + path)).decode("latin-1")
        log.warning(
            "would be denied: %r of %s: %s", what, source or _NOBODY, _by(policy, rule, "AUDIT")
        )

    def _log(self, denial: Denial) -> None:
        if not self._lines.room():
            return
        what = f"{denial.method} {denial.authority}{denial.path}" if denial.method else "connection"
        why = denial.reason or "no rule allows it"
        if denial.policy:
            why = _by(denial.policy, denial.rule)
        log.warning("denied %s: %r of %s: %s", denial.id, what, denial.source or _NOBODY, why)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _by(policy: str, rule: str, action: str = "") -> str:
    return f"rule {rule!r} of {action}{' ' if action else ''}AuthorizationPolicy {policy}"

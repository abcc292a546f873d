"""
Who was denied what, and by which rule: for the operator, never for the caller.

A denied caller is told an opaque id and nothing else: neither whether a policy named it nor what
another path would have been answered.  The operator finds the rule by that id, in the log and under
`/denials` of the admin port; the last thousand are kept.

Whoever is denied can ask again as fast as it likes, so the log gets a few lines a second and then the
number of those that were left out.  All are counted (`mesh_authorization_denied_total`).
"""

import logging
from collections import deque
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, NamedTuple

log = logging.getLogger("meshproxy.authorization")

KEPT: Final = 1_000
LONGEST: Final = 512
"""Characters that are kept of anything that a caller chooses: a thousand paths may be 16 MB long."""
LINES_PER_SECOND: Final = 10


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


class Denials:
    """The last ones."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now = now
        self._wall = wall
        self._kept: deque[Denial] = deque(maxlen=KEPT)
        self._second = 0.0
        self._lines = 0
        self._left_out = 0

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

    def _log(self, denial: Denial) -> None:
        now = self._now()
        if now - self._second >= 1.0:
            if self._left_out:
                log.warning("%d more were denied in the meantime", self._left_out)
            self._second, self._lines, self._left_out = now, 0, 0
        if self._lines >= LINES_PER_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        what = f"{denial.method} {denial.authority}{denial.path}" if denial.method else "connection"
        why = denial.reason or "no rule allows it"
        if denial.policy:
            why = f"rule {denial.rule!r} of AuthorizationPolicy {denial.policy}"
        log.warning(
            "denied %s: %r of %s: %s", denial.id, what, denial.source or "an unknown caller", why
        )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"

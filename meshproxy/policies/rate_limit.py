"""
Rate limit: no caller gets more than its share, whatever it asks for.

Theory of operation
===================

A token bucket holds up to `burst` tokens and is refilled at a steady rate; a request takes one, and
is refused where there is none.  So over any interval of t seconds at most `burst + rate * t` requests
pass, and a caller that was silent for a while may ask for `burst` things at once.

1) **One number is a bucket** (GCRA, the generic cell rate algorithm of ATM Forum TM 4.0).  Instead
   of a level that would have to be refilled, a bucket is the moment at which it will be full again.
   Each request moves that moment `1 / rate` later; one that would move it further away than
   a whole bucket takes to fill is refused.  Nothing runs in the background.
2) **All or nothing.**  Several limits may mean a request: all are asked before any gives a token, so
   a request that one of them refuses costs the others nothing.
3) **Memory is bounded.**  A bucket per identity or header value could be as many as a client
   likes to invent.  A bucket that is full is like one that never was, so it is forgotten without
   loss.  When `BUCKETS` of them are in use at once, all newcomers share one more bucket of the same
   size: the limit *fails closed* for those it cannot tell apart (together they get one caller's
   share), and holds as before for those it knows.  Making room by throwing out a bucket that is in
   use would hand a full one to whoever comes back: a caller with enough names would have no limit.
   A header's value counts by its hash, so its length costs nothing.
4) **Who does not say who it is shares a bucket**, too: all without the header, all without a proved
   identity.  Otherwise leaving it out would be the way around the limit.

What is left is told to the caller with each answer (draft-ietf-httpapi-ratelimit-headers-10):
`RateLimit-Policy: "name";q=20;w=10`, a bucket of 20 that takes 10 seconds to fill, and
`RateLimit: "name";r=5;t=8`, in which are 5 tokens and which is full again in 8 seconds.  A refusal
says with `Retry-After` when the next token is there.

**Limits are local.**  Each proxy counts what passes through it, and each worker of a proxy its
part: `--workers 4` gives each a quarter of rate and burst (of at least one token), because the kernel
spreads connections over them.  A caller with a single connection gets the part of one worker.

Called from: `Exchange.on_request_head`.
Configured by: `contract.RateLimitSpec`.
"""

from collections.abc import Iterable
from math import ceil
from typing import Final, NamedTuple

from meshproxy.contract.policies import RateLimitSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, field, value_of
from meshproxy.routing.authority import normalized
from meshproxy.routing.match import IdentityMatch, Match

BUCKETS: Final = 10_000
"""Buckets in use at once, per limit; about 150 bytes each."""

LOOK: Final = 1.0
"""Seconds between two looks for full buckets while there is no room: one takes about a millisecond."""

POLICY: Final = b"RateLimit-Policy"
STATE: Final = b"RateLimit"
_STATE: Final = STATE.lower()
RETRY_AFTER: Final = b"Retry-After"

_ROUNDING: Final = 1e-8
"""Seconds: the clock is a float, and a token must not be missed for its last digit."""

_NOBODY: Final = 0
_OVERFLOW: Final = 1

Key = str | int
"""Whose bucket: an identity, the hash of a header's value, or one of the two above."""


class Limit:
    """
    The buckets of one limit.

    Attributes:
        conditional: Not every request is counted.
        name: For metrics and the fields of the answer.
        policy: For `RateLimit-Policy`.
        shared: There is one bucket for all.
    """

    __slots__ = (
        "_buckets", "_capacity", "_header", "_interval", "_look_at", "_match", "_per_identity",
        "_quoted", "_source", "_tolerance", "conditional", "name", "policy", "shared",
    )  # fmt: skip

    def __init__(
        self, spec: RateLimitSpec, where: str = "", *, parts: int = 1, buckets: int = BUCKETS
    ) -> None:
        """
        Args:
            spec: What was configured.
            where: In the contract, for errors.
            parts: Workers that share the limit.
            buckets: How many there may be in use at once.

        Raises:
            ContractError: The name cannot be said in a header, the header is missing or not wanted,
                or the match is not valid.
        """
        if not (spec.name.isascii() and spec.name.isprintable()):
            raise ContractError(f"{where}.name", f"expected printable ASCII, got {spec.name!r}")
        if (spec.per == "header") != bool(spec.header):
            expected = "a name" if spec.per == "header" else f"none with per {spec.per!r}"
            raise ContractError(f"{where}.header", f"expected {expected}, got {spec.header!r}")
        match = Match(spec.match, f"{where}.match")
        self.name = spec.name
        self._match = None if match.prefix == b"" and not match.conditions else match
        self._source = IdentityMatch(spec.source)
        self.conditional = self._match is not None or not self._source.anybody
        self.shared = spec.per == "all"
        self._per_identity = spec.per == "identity"
        self._header = spec.header.lower().encode()
        # Seconds for one token, and for all but one of them to come.
        burst = max(1.0, (spec.burst or spec.requests) / parts)
        self._interval = spec.interval / 1000 / spec.requests * parts
        self._tolerance = (burst - 1) * self._interval + _ROUNDING
        self._buckets: dict[Key, float] = {}
        self._capacity = buckets
        self._look_at = 0.0
        self._quoted = b'"%s"' % spec.name.replace("\\", "\\\\").replace('"', '\\"').encode()
        # Of the whole, not of this worker's part: that is what was agreed upon.
        whole = spec.burst or spec.requests
        window = max(1, ceil(whole * spec.interval / 1000 / spec.requests))
        self.policy = b"%s;q=%d;w=%d" % (self._quoted, whole, window)

    def __repr__(self) -> str:
        return f"<Limit {self.name} {len(self._buckets)} buckets>"

    def means(self, head: RequestHead, identity: str | None) -> bool:
        """Say whether this request is counted."""
        match, source = self._match, self._source
        return (match is None or match.holds(head)) and (source.anybody or source.holds(identity))

    def key(self, head: RequestHead, identity: str | None, now: float) -> Key:
        """Return whose bucket the request takes from."""
        key: Key = _NOBODY
        if self._per_identity:
            key = identity or _NOBODY
        elif self._header:
            value = (
                normalized(head.authority)  # or each spelling would have a bucket of its own
                if self._header == b"host"
                else value_of(head.fields, self._header)
            )
            key = _NOBODY if value is None else hash(value)
        if key in self._buckets or key == _NOBODY:
            return key
        return key if self._has_room(now) else _OVERFLOW

    def _has_room(self, now: float) -> bool:
        """Say whether one more caller can have a bucket, without those that are full again."""
        if len(self._buckets) < self._capacity:
            return True
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._buckets = {key: full for key, full in self._buckets.items() if full > now}
        return len(self._buckets) - (_OVERFLOW in self._buckets) < self._capacity

    def wait(self, key: Key, now: float) -> float:
        """Return the seconds until there is a token; not positive where there is one now."""
        return self._buckets.get(key, now) - self._tolerance - now

    def take(self, key: Key, now: float) -> bytes:
        """Take a token, of which there must be one; return what is left, for `RateLimit`."""
        return self.try_to_take(key, now) or self.state(key, now)

    def try_to_take(self, key: Key, now: float) -> bytes | None:
        """Take a token and return what is left, for `RateLimit`; None where there is no token."""
        buckets = self._buckets
        full_at = buckets.get(key, now)
        if full_at < now:
            full_at = now
        elif full_at - self._tolerance > now:
            return None
        buckets[key] = full_at = full_at + self._interval
        until_full = full_at - now  # `_state`, without the calls; `//` rounds down
        left = int((self._tolerance - until_full) / self._interval + 1)
        return b"%b;r=%d;t=%d" % (self._quoted, left, -int(-until_full // 1))

    def state(self, key: Key, now: float) -> bytes:
        """Return what is left, for `RateLimit`."""
        return self._state(max(0.0, self._buckets.get(key, now) - now))

    def _state(self, until_full: float) -> bytes:
        left = max(0, int((self._tolerance - until_full) / self._interval + 1))
        return b"%s;r=%d;t=%d" % (self._quoted, left, ceil(until_full))

    @property
    def in_use(self) -> int:
        """How many buckets are kept."""
        return len(self._buckets)


class Refused(NamedTuple):
    """
    Attributes:
        limit: Name of the one that has no token.
        overflow: Its buckets were all in use, and the caller has none of its own.
        fields: What the answer tells the caller.
    """

    limit: str
    overflow: bool
    fields: list[Field]


class RateLimit:
    """All limits that requests of one route are asked for."""

    __slots__ = ("_limits", "_only", "_policy")

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._limits = tuple(limits)
        only = self._limits[0] if len(self._limits) == 1 else None
        self._only = None if only is None or only.conditional else only
        policies = [limit.policy for limit in self._limits]
        # As long as all mean every request, what is told of them never changes.
        self._policy = field(POLICY, b", ".join(policies))

    def ask(self, head: RequestHead, identity: str | None, now: float) -> Refused | list[Field]:
        """
        Take a token of each limit that means the request, or of none.

        Args:
            head: As the client has sent it.
            identity: Of the caller, as it was proved; None where it was not.
            now: On our clock.

        Returns:
            The fields that tell the caller what is left (none where no limit means the request),
            or why it is refused.
        """
        only = self._only
        if only is not None:  # as nearly always: nobody else need be asked before
            state = only.try_to_take(_NOBODY if only.shared else only.key(head, identity, now), now)
            if state is not None:
                return [self._policy, (_STATE, state, b"RateLimit: " + state)]
        meant = [
            (limit, _NOBODY if limit.shared else limit.key(head, identity, now))
            for limit in self._limits
            if not limit.conditional or limit.means(head, identity)
        ]
        if not meant:
            return []
        longest, short = 0.0, None
        for limit, key in meant:
            wait = limit.wait(key, now)
            if wait > longest:
                longest, short = wait, (limit, key)
        if short is None:
            state = b", ".join([limit.take(key, now) for limit, key in meant])
            return [self._policies(meant), (_STATE, state, b"RateLimit: " + state)]
        fields = [
            self._policies(meant),
            field(STATE, b", ".join([limit.state(key, now) for limit, key in meant])),
            field(RETRY_AFTER, b"%d" % ceil(longest)),
        ]
        return Refused(short[0].name, short[1] == _OVERFLOW, fields)

    def _policies(self, meant: list[tuple[Limit, Key]]) -> Field:
        if len(meant) == len(self._limits):
            return self._policy
        return field(POLICY, b", ".join([limit.policy for limit, _ in meant]))

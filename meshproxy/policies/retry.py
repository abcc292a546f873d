"""
Retry: ask again where that does no harm, or where somebody has asked for it.

Theory of operation
===================

A retry hides one bad connection or endpoint from the client.  It has two dangers: a request that
was executed and is sent again may charge a customer twice; and retries come when a service is in
trouble and add to its load, so that it never recovers.  So there are four *cases*, from the
harmless to the one that must be asked for:

`UNPROCESSED`  The request provably was not processed: no connection could be made, the endpoint
    has refused the stream unread (RFC 9113 section 8.7), or the next mesh proxy, whose identity is
    proved, says that it could not reach its app, and there are others.  Repeated by default,
    whatever the method.
`STALE`  A *reused* connection was closed before a byte of the response.  The server most likely
    closed an idle connection while the request was on its way (RFC 9112 section 9.3.1), but that
    cannot be proved: repeated by default, at once, where repeating is safe.
`ASKED`  The policy names it: the code of an answer, a reset, a timeout of one attempt.  The request
    may have been processed, so it must be safe to repeat, too.
`STATUS`  The policy names the gRPC status of an answer without messages.  Every gRPC call is a POST:
    who lists such a condition has said that these calls may be repeated.

Repeating is *safe* for idempotent methods (RFC 9110 section 9.2.2), for a request with an
`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), and where the policy says
`any_method`.  A switch of protocols never is: nobody but the two ends knows what it does.

Never repeated: what failed here for want of room or of a certificate, an opaque connection that a
policy at the other end denies (`HOPELESS`: asking again would only add to the crowd, or change
nothing), and an answer of which the client has seen a part.

Limits, each but the first with a name under which a retry that was not made is counted:

`attempts`  Tries in all, the first included.
`not-idempotent`  See above.
`of-retry`  The request is itself a retry of a proxy before us, and may have been processed here:
    three hops with three tries each would cost 27 requests.
`retried-below`  The answer comes from a mesh proxy whose app has failed only after the tries of a
    proxy behind it: the same, seen from the other side.
`body-too-large`  The body is no longer held in full (`replay_limit`).
`replay-memory`  The same, because of all the others that are held (`replay.py`).
`retry-after`  The answer says to wait longer than `max_backoff`: then the client had better know.
`deadline`  The time that the caller allowed would have passed.
`overflow`  As many requests are retried at once as may be (`limits.retries`, none by default).
`budget`  See `retry_budget.py`.

Between tries passes a random time up to `backoff`, doubled with each try up to `max_backoff` (full
jitter: who failed together does not come back together), on top of what `Retry-After` asks for.
The next try goes to an endpoint that was not tried yet, if there is one.

Called from: `Exchange.on_upstream_failed`, `on_response_head`, `on_response_reset`, `on_due`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from meshproxy.contract.policies import HedgeSpec, RetryCondition, RetrySpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import TUNNEL, Fields, RequestHead, field, value_of
from meshproxy.refusal import REFUSALS

# What speaks for another attempt, or that nothing does.
NEVER: Final = 0
UNPROCESSED: Final = 1
STALE: Final = 2
ASKED: Final = 3
STATUS: Final = 4

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
IDEMPOTENCY_KEY: Final = b"idempotency-key"
RETRY_AFTER: Final = b"retry-after"

HOPELESS: Final = frozenset(
    {
        "overflow",
        "circuit-open",
        "not-ready",
        "fields-too-large",
        "upgrade-not-supported",
        "loop",
        "access-denied",
    }
)
_UNREACHED: Final = frozenset(
    {b"connect-failed", b"connect-timeout", b"handshake-failed", b"stream-refused"}
)
"""Refusals of the next proxy that are no word of the app's and say nothing about another one."""

# What the opt-in conditions mean, in Envoy's words (`x-envoy-retry-on`).  `connect-failure`,
# `refused-stream` and `reset-before-request` are not here: they are done anyway.
_RESETS: Final = frozenset({"upstream-closed", "upstream-reset"})
_TIMEOUTS: Final = frozenset({"attempt-timeout"})
_FAILURES: Final[dict[RetryCondition, frozenset[str]]] = {
    "reset": _RESETS,
    "timeout": _TIMEOUTS,
    # "Does not respond at all (disconnect/reset/read timeout)" becomes a 5xx of ours.
    "5xx": _RESETS | _TIMEOUTS,
    "gateway-error": _RESETS | _TIMEOUTS,
}
_CODES: Final[dict[RetryCondition, tuple[int, ...]]] = {
    "5xx": tuple(range(500, 600)),
    "gateway-error": (502, 503, 504),
    "retriable-4xx": (409,),
}
_STATUSES: Final[dict[RetryCondition, str]] = {
    "grpc-cancelled": "1",
    "grpc-deadline-exceeded": "4",
    "grpc-resource-exhausted": "8",
    "grpc-internal": "13",
    "grpc-unavailable": "14",
}

UNCOUNTED: Final = 4 << 10
"""Bytes of a body that are kept without being counted as kept (see `replay.py`)."""

_DEFAULT: Final = RetrySpec()


class Retry:
    """
    Decides whether another attempt may be made, and when.

    Attributes:
        attempts: Tries in all.
        replay_limit: Bytes of a request's body that are kept for the next one.
        uncounted: Of these, the bytes that are kept without counting them.
        max_backoff: Seconds; the longest wait.
        hedge: When a second attempt begins beside a slow first one, or None.
    """

    __slots__ = (
        "_any_method", "_backoff", "_codes", "_failures", "_of_retries", "_statuses", "attempts",
        "hedge", "max_backoff", "replay_limit", "uncounted",
    )  # fmt: skip

    def __init__(self, spec: RetrySpec = _DEFAULT, where: str = "retry") -> None:
        """
        Raises:
            ContractError: The parts of the spec contradict each other.
        """
        _check(spec, where)
        self.attempts = spec.attempts
        self.replay_limit = spec.replay_limit
        self.uncounted = min(UNCOUNTED, spec.replay_limit)
        self.max_backoff = spec.max_backoff / 1000
        self.hedge: HedgeSpec | None = spec.hedge
        self._backoff = spec.backoff / 1000
        self._any_method = spec.any_method
        self._of_retries = spec.of_retries
        conditions = spec.conditions
        self._codes = frozenset(spec.codes).union(*(_CODES.get(name, ()) for name in conditions))
        self._statuses = frozenset(_STATUSES[name] for name in conditions if name in _STATUSES)
        self._failures = frozenset[str]().union(*(_FAILURES.get(name, ()) for name in conditions))

    def __repr__(self) -> str:
        return f"<Retry {self.attempts} attempts>"

    # What speaks for another attempt --------------------------------------------------------------

    def of_failure(self, code: str, *, sent: bool, reused: bool) -> int:
        """
        Return what speaks for an attempt after one without an answer.

        Args:
            code: Why it failed, as in `refusal.py`.
            sent: A byte of the request may have reached an endpoint.
            reused: On a connection that had served before.
        """
        if code in HOPELESS:
            return NEVER
        if not sent:
            return UNPROCESSED
        if reused:
            return STALE
        return ASKED if code in self._failures else NEVER

    def of_answer(
        self,
        status: int,
        grpc_status: str | None,
        refused: bytes | None = None,
        *,
        elsewhere: bool = False,
    ) -> int:
        """
        Return what speaks for an attempt after an answer, of which the client has seen nothing.

        Args:
            status: Of HTTP.
            grpc_status: In the head of an answer without messages; None otherwise.
            refused: The code with which a proved mesh proxy has refused, or None.
            elsewhere: There is another endpoint.  That proxy has tried its own app often enough.
        """
        if elsewhere and refused in _UNREACHED:
            return UNPROCESSED
        if grpc_status in self._statuses:
            return STATUS
        if status not in self._codes:
            return NEVER
        why = None if refused is None else REFUSALS.get(refused.decode("latin-1"))
        return ASKED if why is None or why.processed else UNPROCESSED

    # What speaks against it -----------------------------------------------------------------------

    def objection(
        self, case: int, head: RequestHead, *, made: int, held: bool, of_retry: bool, below: bool
    ) -> str:
        """
        Return the name of the limit that forbids another attempt; empty where none does.

        Args:
            case: What speaks for it.
            head: Of the request.
            made: Attempts so far.
            held: The body is still there in full, as far as it has come.
            of_retry: The request is itself a retry of a proxy before us.
            below: What failed had been tried more than once by a proxy behind us.
        """
        if made >= self.attempts:
            return "attempts"
        if case in (STALE, ASKED) and not self._is_safe(head):
            return "not-idempotent"
        # To repeat what nobody has processed multiplies nothing.
        if case in (ASKED, STATUS) and not self._of_retries:
            if of_retry:
                return "of-retry"
            if below:
                return "retried-below"
        return "" if held else "body-too-large"

    def _is_safe(self, head: RequestHead) -> bool:
        """Say whether a request that may have been processed may be processed again."""
        if head.length == TUNNEL:
            return False
        return (
            head.method in IDEMPOTENT
            or self._any_method
            or value_of(head.fields, IDEMPOTENCY_KEY) is not None
        )

    # When -----------------------------------------------------------------------------------------

    def wait(
        self, case: int, made: int, random: Callable[[], float], after: float | None = None
    ) -> float:
        """
        Return the seconds to wait before the next attempt.

        Args:
            case: What speaks for it.
            made: Attempts so far.
            random: Gives points in [0, 1).
            after: What `Retry-After` asks for.
        """
        if case == STALE:
            return 0.0
        bound: float = min(self._backoff * 2.0 ** (made - 1), self.max_backoff)
        return random() * bound + (after or 0.0)


def _check(spec: RetrySpec, where: str) -> None:
    """
    Refuse what cannot be meant.

    Raises:
        ContractError: There is something.
    """
    if spec.backoff > spec.max_backoff:
        why = f"{spec.backoff} ms is longer than max_backoff, {spec.max_backoff} ms"
        raise ContractError(f"{where}.backoff", why)
    hedge = spec.hedge
    if hedge is None:
        return
    if spec.attempts < 2:
        raise ContractError(f"{where}.hedge", "needs 2 attempts at least")
    if spec.per_try_timeout is not None and hedge.min_delay >= spec.per_try_timeout:
        why = f"{hedge.min_delay} ms is no less than per_try_timeout, {spec.per_try_timeout} ms"
        raise ContractError(f"{where}.hedge.min_delay", why)


# What an answer says ------------------------------------------------------------------------------

_MONTHS: Final = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip
_LONGEST: Final = 9
"""Digits: some thirty years of seconds."""


def retry_after(fields: Fields) -> float | None:
    """
    Return the seconds that `Retry-After` asks for (RFC 9110 section 10.2.3); None without one.

    A date is taken relative to the answer's own `Date`: our clock may differ from the server's.
    What cannot be read asks for nothing.
    """
    value = value_of(fields, RETRY_AFTER)
    if value is None:
        return None
    if value.isdigit():  # ASCII: it is bytes
        return float(value[:_LONGEST]) if len(value) <= _LONGEST else float("inf")
    then, now = _date(value), _date(value_of(fields, b"date") or b"")
    return None if then is None or now is None else max(0.0, then - now)


def _date(value: bytes) -> float | None:
    """Return the seconds since the epoch of an IMF-fixdate, ``Sun, 06 Nov 1994 08:49:37 GMT``."""
    try:
        _, day, month, year, clock, zone = value.split(b" ")
        hour, minute, second = map(int, clock.split(b":"))
        number = _MONTHS.index(month) + 1
        when = datetime(int(year), number, int(day), hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return when.timestamp() if zone == b"GMT" else None


# What crosses hops --------------------------------------------------------------------------------

RETRIED: Final = b"x-mesh-retried"
"""Field of a mesh proxy's answer: what failed had been tried more than once further down."""

RETRIED_FIELD: Final = field(RETRIED, b"1")

"""
Propagation: what was allowed to a request holds for the calls that are made because of it.

Theory of operation
===================

A caller gives a request so much time, says how important it is, and which attempt it is.  All three
are worth little if they end at the first app: behind it, other services go on working for an answer
that nobody waits for, or try three times what is a third try already.  gRPC hands such things on
inside its libraries; for plain HTTP, no app does.

**Between proxies** they travel in fields of ours:

    x-mesh-deadline-ms    milliseconds that are left; gRPC has `grpc-timeout` for that
    x-mesh-attempt        which attempt this is, over all hops; not said of the first
    x-mesh-criticality    critical, default or sheddable
    x-mesh-spent          who took the most of the time so far (``default/cart=950``), for refusals
    x-mesh-mirrored       it is the copy of a request, or made for one (`mirroring.py`)

They are believed inbound only of a peer that has proved its identity.  The app beside us is believed
about the deadline, which it can only shorten, and the criticality of its own calls.

**Across the app.**  A sidecar sees the request that comes in and the calls that go out.  Which belong
together says the trace context that the app passes on, as tracing wants it to: `traceparent` (W3C
Trace Context, section 3.2), else `b3`, `x-b3-traceid` or `x-request-id`.  So a table holds, by trace
id, every inbound exchange that is under way, from its head to its end; an outbound call looks its own
id up and takes over what it finds.  When the inbound exchange's client goes away, the calls found to
be made for it are cancelled.

**Nothing is guessed.**  Without an id, or with one that is not in the table, a call inherits nothing.
When several inbound exchanges share an id (a trace that comes by here twice at the same time), the one
whose `traceparent` the call repeats to the last byte is meant.  If that does not tell them apart, the
call is made for one of them, and what holds for all of them holds for it: the latest deadline, the
lowest attempt, the highest criticality.  It is not cancelled with any of them.

**What was given up stays given up.**  An app seldom notices that its request's time has passed, or that
its client has gone, and goes on to make the next call.  So such an exchange stays in the table for a
minute after its end, and calls that are made for it are refused.  Exchanges that were answered do not:
what an app does after its answer is its own business.

Memory is bounded: an entry is smaller than its exchange and lives as long, and of those that were given
up, the oldest make room above `MOST_KEPT`.  The table is one for each process: where several workers serve one proxy, a call may go out by another worker than the
request came in by, and then has only what the app itself passes on.

Called from: `Exchange.on_request_head`, `Exchange.on_upstream_ready`, `Exchange._finish`.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final, Generic, TypeVar

from meshproxy.message import TRACE_FIELDS, Field, Fields, field

DEADLINE: Final = b"x-mesh-deadline-ms"
ATTEMPT: Final = b"x-mesh-attempt"
CRITICALITY: Final = b"x-mesh-criticality"
SPENT: Final = b"x-mesh-spent"
MIRRORED: Final = b"x-mesh-mirrored"

_SAID: Final = frozenset({DEADLINE, ATTEMPT, CRITICALITY, SPENT, MIRRORED})
CRITICALITIES: Final = {name.encode(): name for name in ("critical", "default", "sheddable")}
"""Most important first."""
_RANKS: Final = {name: rank for rank, name in enumerate(CRITICALITIES.values())}
_CRITICALITY_FIELDS: Final = {
    name: field(CRITICALITY, value) for value, name in CRITICALITIES.items()
}

_REMEMBERED: Final = 1024
_DIGITS: Final = 10  # 115 days
_ROUNDING: Final = 1e-4
"""Milliseconds that differences of the clock may be off: 300 must not be passed on as 299."""
_ATTEMPT_DIGITS: Final = 3
_spent: Final = re.compile(rb"([0-9A-Za-z./_-]{1,253})=([0-9]{1,10})").fullmatch

_NO_TRACE: Final = b"0" * 32  # "All bytes as zero … is considered an invalid value"
_LONGEST_ID: Final = 128
_CROWD: Final = 64
"""Exchanges with one trace id above which nobody looks through them: a stranger can choose the id."""

KEPT: Final = 60.0
"""Seconds for which a call for a request that was given up is recognized."""
MOST_KEPT: Final = 4096

C = TypeVar("C")


# What is known about the work that an exchange is part of -----------------------------------------


class Context(Generic[C]):
    """
    What a request brought, or took over.

    Attributes:
        deadline: On our clock, when nobody waits any more; infinite where nobody has said.
        attempt: Which attempt it is, 1 for the first: over all hops, not only of the last one.
        criticality: None where nobody has said.
        spender: Who took the most of the time before this request came; empty where unknown.
        spent: The seconds that it took.
        started: When the inbound exchange began; only in the table.
        ended: When it was given up; infinite while it is under way.
        gone: It was given up because its client had gone.
        calls: Outbound exchanges made for it; only in the table.
        mirrored: It is the copy of a request, or made for one: it is not copied once more.
        retried: One of them has failed after more than one try; so trying again has been done.
    """

    __slots__ = (
        "_ids", "_line", "attempt", "calls", "criticality", "deadline", "ended", "gone", "mirrored",
        "retried", "spender", "spent", "started",
    )  # fmt: skip

    _ids: tuple[bytes, ...]
    _line: bytes
    calls: "set[C]"

    def __init__(
        self, deadline: float = inf, attempt: int = 1, criticality: str | None = None
    ) -> None:
        self.deadline = deadline
        self.attempt = attempt
        self.criticality = criticality
        self.spender = ""
        self.spent = 0.0
        self.started = inf
        self.ended = inf
        self.gone = False
        self.mirrored = False
        self.retried = False

    def own(self) -> "Context[C]":
        """Return one that may be changed."""
        return Context() if self is NOTHING else self

    def within(self, whole: "Context[C]") -> "Context[C]":
        """Return what holds for a call that says so much itself, and is part of `whole`."""
        part: Context[C] = Context(
            min(self.deadline, whole.deadline), whole.attempt, self.criticality or whole.criticality
        )
        part.started, part.spender, part.spent = whole.started, whole.spender, whole.spent
        part.gone = whole.gone
        part.mirrored = whole.mirrored  # nobody says that of himself
        return part

    def __repr__(self) -> str:
        return f"<Context attempt {self.attempt}, {self.criticality}, until {self.deadline}>"


NOTHING: Final[Context[Any]] = Context()
"""Of a request that brought nothing; not to be changed."""


# What is said -------------------------------------------------------------------------------------


def read(mesh_fields: Fields, now: float) -> Context[Any]:  # noqa: C901 - a part would be a call
    """Return what a mesh proxy has said; what is not valid is as if it had not been said."""
    context = NOTHING
    for name, value, _line in mesh_fields:
        if name not in _SAID:
            continue
        if context is NOTHING:
            context = Context()
        if name == DEADLINE:
            if value.isdigit() and len(value) <= _DIGITS:
                context.deadline = min(context.deadline, now + int(value) / 1000)
        elif name == ATTEMPT:
            if value.isdigit() and len(value) <= _ATTEMPT_DIGITS:
                context.attempt = max(context.attempt, int(value))
        elif name == CRITICALITY:
            context.criticality = CRITICALITIES.get(value, context.criticality)
        elif name == SPENT:
            found = _spent(value)
            if found is not None:
                context.spender, context.spent = found[1].decode(), int(found[2]) / 1000
        else:
            context.mirrored = True
    return context


def put(fields: Fields, one: Field) -> None:
    """Say `one`, in the place of what an earlier attempt, or the client, has said."""
    name = one[0]
    for index, other in enumerate(fields):
        if other[0] == name:
            fields[index] = one
            fields[index + 1 :] = [rest for rest in fields[index + 1 :] if rest[0] != name]
            return
    fields.append(one)


class _Deadlines(dict[int, Field]):
    """Fields that allow so many milliseconds; most requests have as many left as others had."""

    def __missing__(self, milliseconds: int) -> Field:
        made = field(DEADLINE, b"%d" % max(milliseconds, 0))
        if len(self) >= _REMEMBERED:
            self.clear()
        self[milliseconds] = made
        return made


_deadlines: Final = _Deadlines()


def deadline_field(left: float) -> Field:
    """Return the field that allows so many seconds: whole milliseconds, never more."""
    return _deadlines[int(left * 1000 + _ROUNDING)]


def attempt_field(attempt: int) -> Field:
    return field(ATTEMPT, b"%d" % min(attempt, 10**_ATTEMPT_DIGITS - 1))


def criticality_field(criticality: str) -> Field:
    return _CRITICALITY_FIELDS[criticality]


def spent_field(spender: str, seconds: float) -> Field:
    return field(SPENT, b"%b=%d" % (spender.encode(), int(seconds * 1000)))


# What belongs together ----------------------------------------------------------------------------


def trace_of(fields: Sequence[Field]) -> tuple[tuple[bytes, ...], bytes]:
    """
    Return the ids of the trace that a request is part of, and its `traceparent` as it stands.

    All that it has: an app may pass on one and not the other.
    """
    ids: tuple[bytes, ...] = ()
    line = b""
    for name, value, _line in fields:
        if name in TRACE_FIELDS:
            if name == b"traceparent":
                line = value
            if name == b"traceparent" and len(value) == 55 and value[2] == value[35] == 45:
                found = value[
                    3:35
                ]  # as it is today, and nearly always: `_trace_id`, without the call
                if not found.isalnum() or found == _NO_TRACE:
                    found = b""
            else:
                found = _trace_id(name, value)
            if found and found not in ids:
                ids = (*ids, found)
    return ids, line


def _trace_id(name: bytes, value: bytes) -> bytes:
    """Return the id in one field, or nothing."""
    if name == b"x-request-id":
        return b"request " + value if 0 < len(value) <= _LONGEST_ID else b""
    if name == b"traceparent":
        # version "-" trace-id "-" parent-id "-" trace-flags; later versions may add to it.
        if len(value) < 55 or value[2:3] != b"-" or value[35:36] != b"-":
            return b""
        trace = value[3:35]
    else:  # 64 or 128 bits; in `b3`, more may follow, and a single letter decides on sampling only
        trace = value.partition(b"-")[0].lower()
        if len(trace) not in (16, 32):
            return b""
        trace = trace.rjust(32, b"0")
    return trace if trace.isalnum() and trace != _NO_TRACE else b""


class Propagation(Generic[C]):
    """
    The inbound exchanges that are part of a trace, by its ids.

    Attributes:
        by_id: Empty when there are none: nothing need be looked up then.
        found: Calls for which one exchange was found.
        ambiguous: Calls that could have been made for several.
        unknown: Calls for which none was found, although there were some to be looked through.
    """

    __slots__ = ("_given_up", "ambiguous", "by_id", "found", "unknown")

    def __init__(self) -> None:
        self.by_id: dict[bytes, list[Context[C]]] = {}
        self._given_up: deque[Context[C]] = deque()
        self.found = 0
        self.ambiguous = 0
        self.unknown = 0

    def __repr__(self) -> str:
        return f"<Propagation {len(self.by_id)} traces>"

    def enter(self, context: Context[C], ids: tuple[bytes, ...], line: bytes) -> None:
        """An inbound exchange has begun; `leave` or `give_up` when it ends."""
        context.calls = set()
        context._ids = ids  # noqa: SLF001 - two halves of one thing
        context._line = line  # noqa: SLF001
        for one in ids:
            others = self.by_id.get(one)
            if others is None:
                self.by_id[one] = [context]
            else:
                others.append(context)

    def give_up(self, context: Context[C], now: float, *, gone: bool) -> None:
        """
        The inbound exchange has ended without an answer, or with half of one.

        Args:
            context: Of the exchange.
            now: On our clock.
            gone: Because its client had gone; otherwise because its time had passed.
        """
        context.ended, context.gone = now, gone
        kept = self._given_up
        kept.append(context)
        while kept[0].ended < now - KEPT or len(kept) > MOST_KEPT:
            self.leave(kept.popleft())

    def leave(self, context: Context[C]) -> None:
        """The inbound exchange has ended."""
        for one in context._ids:  # noqa: SLF001
            others = self.by_id[one]
            if len(others) == 1:
                del self.by_id[one]
            else:
                others.remove(context)

    def find(self, ids: tuple[bytes, ...], line: bytes) -> Context[C] | None:
        """
        Return what the inbound exchange brought for which a call with this trace is made.

        If that could be several, return what holds for all of them.
        """
        for one in ids:
            candidates = self.by_id.get(one)
            if candidates is not None:
                if len(candidates) == 1:  # as nearly always
                    self.found += 1
                    return candidates[0]
                return self._among(candidates, line)
        self.unknown += 1
        return None

    def _among(self, candidates: Sequence[Context[C]], line: bytes) -> Context[C] | None:
        if len(candidates) > _CROWD:
            self.ambiguous += 1
            return None
        if len(candidates) > 1:
            under_way = [one for one in candidates if one.ended == inf]
            candidates = under_way or candidates
        if len(candidates) > 1:
            same = [one for one in candidates if one._line == line] if line else []  # noqa: SLF001
            if len(same) != 1:
                self.ambiguous += 1
                return _common(candidates)
            candidates = same
        self.found += 1
        return candidates[0]


def _common(candidates: Iterable[Context[C]]) -> Context[C]:
    """Return what holds whichever of them is meant."""
    common: Context[C] = Context(-inf, 10**_ATTEMPT_DIGITS)
    common.gone = common.mirrored = True
    common.calls = set()
    ranks = []
    for one in candidates:
        common.deadline = max(common.deadline, one.deadline)
        common.attempt = min(common.attempt, one.attempt)
        ranks.append(_RANKS.get(one.criticality or "default", 0))
        common.gone = common.gone and one.gone
        common.mirrored = common.mirrored and one.mirrored
    names = {one.criticality for one in candidates}
    if names != {None}:
        common.criticality = next(name for name, rank in _RANKS.items() if rank == min(ranks))
    return common

"""
Deadline: how long a request may take, in all and in each of its parts.

Theory of operation
===================

A request has one **deadline**: the earliest of what its caller still allows (`x-mesh-deadline-ms`, or
`grpc-timeout`), what the inbound request that it is made for still has (`propagation.py`), and what
the route allows (HTTPRoute `timeouts.request`: "the maximum duration for a gateway to respond to an
HTTP request").  It covers all attempts, and the body of the answer.  What is left of it is told to
whoever comes next, in whole milliseconds rounded down; so it never grows from hop to hop, and clocks
need not agree.  Below `LEAST` nothing is begun any more: a request that arrives so is refused at once,
and a further attempt is not made, because nobody would wait for its answer.

Besides the deadline there are limits of parts:

    attempt       of one attempt, from the request's first byte to the end of the answer (HTTPRoute
                  `timeouts.backendRequest`: "when the full response has been received")
    answer        of one attempt, to the head of its answer (a retry policy's per-try timeout)
    idle          in which nothing of the request or its answer moves, in either direction; 5 minutes
                  by default, because nothing else ends an exchange whose other side has vanished
    duration      of request and answer together, whatever they are: streams and tunnels, too
    tunnel idle   as idle, of what has switched protocols; none by default, because a quiet
                  WebSocket is an ordinary one, and TCP keep-alive finds out who is gone

When protocols are switched, the deadline and the attempt's limits have done their work: they were
about waiting for the answer, and this is it.

**One timer for all.**  An exchange stands in the timer wheel once, with the moment at which the first
of its limits could be broken.  When that comes, it looks which is, if any, and stands there again.
Nothing moves the timer while data pass: they leave a mark (`Exchange.moved`), and four times in an idle
limit somebody looks whether there is one.  So silence is noticed after the limit, and at the latest a
quarter of it later.

**Most exchanges never need it.**  To stand in the wheel and to leave it again costs about as much as
routing does, and an answer comes in milliseconds.  So limits further away than `FAR` are not armed when
an exchange begins, but by a look at all that are under way, every `LOOK`: there are few left then.

**Who has spent it.**  "The time has passed" helps nobody to find the slow one.  So with the deadline
travels who took the most so far and how long (`x-mesh-spent`), and a refusal names it: a hop before, the
app beside this proxy, or the service that was waited for.

Called from: `Exchange.on_request_head`, `Exchange.begin_attempt`, `Exchange.on_upstream_ready`,
`Exchange.on_due`.
"""

from collections.abc import Iterable
from math import inf
from typing import Final, NamedTuple

from meshproxy.contract.resources import ClusterSpec

LEAST: Final = 0.001
"""Seconds with which something can still be begun: what the field between proxies can say."""

FAR: Final = 0.5
"""Seconds: a limit further away is left to the look at all exchanges, which comes sooner than that."""

LOOK: Final = 0.2
"""Seconds from one look at all exchanges to the next."""

LOOKS: Final = 4
"""How often one looks in an idle limit whether anything has moved."""

BODY: Final = 60.0
"""
Seconds without a byte of a request's body that has been announced, before anything is answered.

Only of HTTP/2 streams; HTTP/1.1 connections look after it themselves.  A body of unknown length may be a
stream of messages that waits for what the other side says, and has the idle limit alone.
"""


# What is configured -------------------------------------------------------------------------------


class Timeouts(NamedTuple):
    """
    Limits in seconds; infinite for none.

    Attributes:
        of_attempt: The nearer one of `attempt` and `answer`.
        first: When one of them, or of the looks at an idle limit, comes first; `request` apart.
        soon: One of them is so near that the timer must be set when the exchange begins.
        near: That, or there is a limit for the request as a whole.
    """

    request: float = inf
    attempt: float = inf
    answer: float = inf
    idle: float = inf
    tunnel_idle: float = inf
    duration: float = inf
    of_attempt: float = inf
    first: float = inf
    soon: bool = False
    near: bool = False


NO_TIMEOUTS: Final = Timeouts()


def seconds(milliseconds: int | None) -> float:
    """Return what a spec says, where 0 means no limit."""
    return milliseconds / 1000 if milliseconds else inf


def of_cluster(spec: ClusterSpec) -> Timeouts:
    """Return what a cluster allows to requests by routes that say nothing."""
    return compiled(
        Timeouts(
            request=seconds(spec.request_timeout),
            attempt=seconds(spec.backend_request_timeout),
            answer=seconds(spec.retry.per_try_timeout),
            idle=seconds(spec.stream_idle_timeout),
            tunnel_idle=seconds(spec.tunnel_idle_timeout),
            duration=seconds(spec.max_stream_duration),
        )
    )


def compiled(limits: Timeouts) -> Timeouts:
    """Return the same limits, with what follows from them."""
    of_attempt = min(limits.attempt, limits.answer)
    nearest = min(limits.request, of_attempt, limits.idle, limits.duration)
    soon = nearest < FAR
    return limits._replace(
        of_attempt=of_attempt,
        first=min(of_attempt, limits.idle / LOOKS, limits.duration),
        soon=soon,
        near=soon or limits.request != inf,
    )


class Overrides:
    """
    What a route says, in the place of what its clusters say; None where it says nothing.

    Attributes:
        of, made: What `over` was asked last, and what it said: most routes have one cluster.
    """

    __slots__ = ("_known", "answer", "attempt", "made", "of", "request")

    def __init__(self, request: float | None, attempt: float | None, answer: float | None) -> None:
        self.request = request
        self.attempt = attempt
        self.answer = answer
        self._known: dict[Timeouts, Timeouts] = {}  # by those of the cluster: there are few
        self.of: Timeouts | None = None
        self.made = NO_TIMEOUTS

    def over(self, cluster: Timeouts) -> Timeouts:
        """Return what holds for a request by this route to a cluster with these limits."""
        known = self._known.get(cluster)
        if known is None:
            known = self._known[cluster] = compiled(
                cluster._replace(
                    request=cluster.request if self.request is None else self.request,
                    attempt=cluster.attempt if self.attempt is None else self.attempt,
                    answer=cluster.answer if self.answer is None else self.answer,
                )
            )
        self.of, self.made = cluster, known
        return known


# Who has spent the time ---------------------------------------------------------------------------


def spender(candidates: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """Return who took the longest, and the seconds; nobody, where that is less than can be said."""
    name, longest = "", LEAST
    for one, took in candidates:
        if one and took >= longest:
            name, longest = one, took
    return (name, longest) if name else ("", 0.0)


def blame(name: str, took: float) -> str:
    """Return what a refusal says of it; nothing where nobody knows."""
    return f"{name} took {took * 1000:.0f} ms of it" if name else ""

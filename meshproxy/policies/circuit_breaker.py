"""
Circuit breaker: leave a service alone that fails too often, and ask carefully whether it is back.

Theory of operation
===================

A request to a service that cannot answer costs its caller a wait and the service work that it has
no use for.  When many fail, not asking is better for both: the caller gets its answer at once and
can do without (a cached price, a page without recommendations), and the service, relieved, has a
chance to recover.  So says the electrician's analogy (Nygard, "Release It!"): the breaker *trips*
before the house burns.

    closed ──── too many of the last requests failed, or were slow ────▶ open
      ▲                                                                   │ open time over,
      │ all probes succeeded                                              ▼ and somebody asks
      └───────────────────────────────────────────────────────────── half-open
                                                                          │ a probe failed
                                                        open ◀────────────┘ (for twice as long)

*Closed*: requests are counted in a window of ten buckets, of which the oldest falls out every tenth
of it.  Whenever one has failed or was slow, the shares are looked at, provided that there were
`min_requests`: two failures of three at night are no reason.

*Open*: all are refused, for `open_time`, doubled each time that a probe fails, up to a cap.

*Half-open*: `probes` requests are let through, the others still refused.  If all succeed, the
breaker closes with an empty window and short times; if one fails, it opens again.  A probe whose
client leaves is given back.  One that does not return (a stream that lasts) does not hold the others
up for ever: after another open time, as many are let through anew.

Only what began in the present state counts, so what was sent to the service while it was ill, and
fails now, does not trip a breaker that has just closed.

Failure is what `policies/outcome.py` calls a gateway error or a local failure: a 500 is an answer, and often
that of one bad request.  Clients' errors and clients that leave never count.

Called from: `Endpoint.judge`, `Cluster.pick`.
"""

from collections.abc import Callable
from typing import Final

from meshproxy.contract.policies import CircuitBreakerSpec

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"
STATES: Final = (CLOSED, OPEN, HALF_OPEN)

BUCKETS: Final = 10

HALF_OPEN_RETRY: Final = 1.0
"""Seconds after which a client may ask again while probes are under way."""


class CircuitBreaker:
    """
    The breaker of one cluster.

    Attributes:
        spec: As configured.
        state: `CLOSED`, `OPEN` or `HALF_OPEN`.
        since: When it came into that state, or began another round of probes.
        openings: How many times it has opened since it was closed last.
    """

    __slots__ = (
        "_bucket_ends",
        "_bucket_seconds",
        "_changed",
        "_failed",
        "_good",
        "_let_through",
        "_place",
        "_requests",
        "_slow",
        "_slow_seconds",
        "_until",
        "openings",
        "since",
        "spec",
        "state",
    )

    def __init__(self, spec: CircuitBreakerSpec, changed: Callable[[str], None]) -> None:
        """Call `changed` with the reason after each change of state."""
        self.spec = spec
        self.state = CLOSED
        self.since = float("-inf")
        self.openings = 0
        self._changed = changed
        self._until = 0.0  # open: when to ask again; half-open: when to ask others
        # Closed: the window
        self._bucket_seconds = spec.window / 1000 / BUCKETS
        self._slow_seconds = (
            float("inf") if spec.slow_percent is None else spec.slow_threshold / 1000
        )
        self._bucket_ends = 0.0
        self._place = 0
        self._empty()
        # Half-open: the probes
        self._let_through = 0
        self._good = 0

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state}, {sum(self._failed)} of {sum(self._requests)} failed>"

    def _empty(self) -> None:
        self._requests = [0] * BUCKETS
        self._failed = [0] * BUCKETS
        self._slow = [0] * BUCKETS

    # May a request pass? --------------------------------------------------------------------------

    def admits(self, now: float) -> bool:
        """Say whether a request may pass; one that may in the half-open state is a probe."""
        if self.state == CLOSED:
            return True
        if now < self._until:
            if self.state == OPEN or self._let_through >= self.spec.probes:
                return False
        elif self.state == OPEN or self._let_through >= self.spec.probes:
            self._probe(now)
        self._let_through += 1
        return True

    def retry_after(self, now: float) -> float:
        """Return the seconds after which a request that was refused may be made again."""
        return self._until - now if self.state == OPEN else HALF_OPEN_RETRY

    # How it went ----------------------------------------------------------------------------------

    def succeeded(self, seconds: float, began: float, now: float) -> None:
        """Learn of an answer whose head took so long."""
        if began < self.since:
            return
        if self.state is not CLOSED:
            if self.state == HALF_OPEN and seconds >= self._slow_seconds:
                self._open(now, "a probe was slow")
            elif self.state == HALF_OPEN:
                self._probe_succeeded(now)
            return
        if now >= self._bucket_ends:
            self._turn(now)
        self._requests[self._place] += 1
        if seconds >= self._slow_seconds:
            self._slow[self._place] += 1
            self._look(now)

    def failed(self, began: float, now: float) -> None:
        """Learn of a failure."""
        if began < self.since:
            return
        if self.state is not CLOSED:
            if self.state == HALF_OPEN:
                self._open(now, "a probe failed")
            return
        if now >= self._bucket_ends:
            self._turn(now)
        self._requests[self._place] += 1
        self._failed[self._place] += 1
        self._look(now)

    def given_up(self, began: float) -> None:
        """Learn that a request has proved nothing: if it was a probe, another may be one."""
        if self.state == HALF_OPEN and began >= self.since:
            self._let_through -= 1

    # The window -----------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """Begin the bucket of this moment, and forget those that are too old."""
        passed = int((now - self._bucket_ends) / self._bucket_seconds) + 1
        for _ in range(min(passed, BUCKETS)):
            self._place = (self._place + 1) % BUCKETS
            self._requests[self._place] = self._failed[self._place] = self._slow[self._place] = 0
        self._bucket_ends += passed * self._bucket_seconds
        if self._bucket_ends <= now:  # lost in rounding
            self._bucket_ends = now + self._bucket_seconds

    def _look(self, now: float) -> None:
        """Trip if too much has gone wrong."""
        spec, requests = self.spec, sum(self._requests)
        if requests < spec.min_requests:
            return
        for percent, count, what in (
            (spec.failure_percent, sum(self._failed), "failed"),
            (spec.slow_percent, sum(self._slow), "were slow"),
        ):
            if percent is not None and count and count * 100 >= percent * requests:
                self._open(now, f"{count} of {requests} requests {what}")
                return

    # Changes of state -----------------------------------------------------------------------------

    def _open(self, now: float, why: str) -> None:
        seconds = min(self.spec.open_time << min(self.openings, 32), self._longest) / 1000
        self.openings += 1
        self.state = OPEN
        self.since = now
        self._until = now + seconds
        self._changed(f"{why}; for {seconds:g} s")

    @property
    def _longest(self) -> int:
        return max(self.spec.max_open_time, self.spec.open_time)

    def _probe(self, now: float) -> None:
        """Begin a round of probes."""
        patience = self._until - self.since
        entered = self.state == OPEN
        self.state = HALF_OPEN
        self.since = now
        self._until = now + patience
        self._let_through = self._good = 0
        if entered:
            self._changed(f"up to {self.spec.probes} requests are let through")

    def _probe_succeeded(self, now: float) -> None:
        self._good += 1
        if self._good < self.spec.probes:
            return
        self.state = CLOSED
        self.since = now
        self.openings = 0
        self._empty()
        self._changed(f"all of {self._good} probes succeeded")

    # For /clusters --------------------------------------------------------------------------------

    def statistics(self, now: float) -> dict[str, object]:
        """Return its state; the counts are as of the last request."""
        told: dict[str, object] = {
            "state": self.state,
            "requests": sum(self._requests),
            "failed": sum(self._failed),
            "slow": sum(self._slow),
        }
        if self.state == OPEN:
            told["retry_after_seconds"] = round(max(0.0, self._until - now), 3)
        return told

"""
Load shedding: turn some requests away in time, so that the others are served in time.

Theory of operation
===================

An app can work on so many requests at once (threads, cores, connections to its database).  More only
queue inside it: each waits longer, callers give up and ask again, and the app works on answers
that nobody waits for.  So the sidecar lets no more in than the app can bear, and refuses
the rest at once, which costs next to nothing.

**Who goes first.**  A request says how much it matters (`x-mesh-criticality`, believed of proved
peers; a sidecar hands it on across its app).  `sheddable` requests are let in up to 80 % of the
limit, `default` ones up to 95 %, `critical` ones up to all of it: under overload batch jobs are
turned away before checkouts are.  Where that is too little room (few places, much that is critical),
it grows: in each window in which a request was turned away, who is less critical loses a
quarter of its share, and gets it back, little by little, in windows in which none was.  So
whatever is critical is served before anything else, as long as the app can bear that alone.

**Who says so of everything.**  The word of a peer costs it nothing, so one that calls all it sends
critical would have the app to itself.  It keeps its word as long as nobody else has to suffer from
it.  But when somebody is turned away who has no more than half of the places, while one identity has
more than that, then what that one sends is sheddable while it has so many (and for `GREEDY`
seconds after the last such case).  An identity that is alone, or within its half, does not notice.

**How many.**  A fixed limit, or one that is found by the gradient of latency (as Envoy's adaptive
concurrency and Netflix's concurrency-limits do), with the time until the answer's head:

1) `min_rtt` is how fast the app answers when it is *calm*: the median of requests that had at most
   `min_limit` beside them from their beginning to their end.
2) Every `WINDOW`, given enough samples, their median says how fast it is now:
   `gradient = min_rtt * (1 + TOLERANCE) / now`, kept within 0.5 and 2;
   `limit = limit * gradient + sqrt(limit)`.
   While latency is as good as it was, the limit grows by its square root, which is how much queue is
   allowed; when the app queues, latency rises in proportion and the limit falls.  With c
   workers in the app it settles a little above c: enough to keep all of them busy.
3) A limit that is not used is not raised: what was not tried is not known to work.
4) `min_rtt` gets old (another version, a full cache), so it is taken anew about once a minute
   (with jitter, so that not all proxies do so together), and when the limit has been at its
   minimum for `STUCK` windows.  An app that was calm often enough in that minute has shown it by
   the way.  One that never was is *made* calm: only `min_limit` requests are let in until it is
   measured.  But **critical ones are never turned away for a measurement**: they keep the limit
   that was found; if they are too many to measure beside, the old value stays until next time.
   In between, a window that was faster than `min_rtt` corrects it.

Failures say nothing of how fast the app works and are no samples (500 and above, or a gRPC status); a
request that was given up without an answer is one if it had waited longer than `min_rtt`.

A request counts from when it is let in until its answer has ended.  One that switches protocols
(WebSocket) leaves the count then: it is no longer work on a request.

With several workers each has its part of the numbers below: their app is the same.

Called from: `Exchange.admit`, `Exchange.on_response_head`, `Exchange._finish`.
Configured by: `contract.SheddingSpec`.
"""

from collections.abc import Callable
from math import inf, sqrt
from typing import Final

from meshproxy.codec.grpc import NO_STATUS
from meshproxy.contract.policies import SheddingSpec

DEFAULT_SHARE: Final = 0.95
SHEDDABLE_SHARE: Final = 0.80

YIELD: Final = 0.75
"""What is left of a share when somebody more critical was turned away."""

REGAIN: Final = 0.02
"""How much of the limit comes back to a share with each window in which nobody was."""

WINDOW: Final = 0.1
"""Seconds; limit and shares are looked at no more often."""

MIN_SAMPLES: Final = 10
"""Below that, a window goes on: a median of few is chance."""

MAX_SAMPLES: Final = 250
"""Kept per window: enough for a median, however many requests there are."""

TOLERANCE: Final = 0.25
"""How much slower than `min_rtt` is not yet slow (Envoy's `buffer`)."""

REMEASURE: Final = 60.0
"""Seconds from one measurement of `min_rtt` to the next."""

JITTER: Final = 0.15
"""Share of `REMEASURE` that is added at random at most."""

MEASURE_SAMPLES: Final = 25

MEASURE_AT_MOST: Final = 2.0
"""Seconds for one measurement where `min_rtt` is known; then the old value stays."""

STUCK: Final = 5
"""Windows at the minimum after which `min_rtt` is not believed any more."""

GREEDY: Final = 10.0
"""Seconds for which one identity's word does not count, after somebody was turned away for it."""

FAILED: Final = 500
"""Statuses from here on say nothing of how fast the app works."""

_FINE: Final = (None, NO_STATUS, "0")

RETRY_AFTER: Final = 1
"""Seconds; in that time the limit has been looked at several times."""


class LoadShedding:
    """
    The requests that one app works on.

    Attributes:
        limit: How many it may be given at once.
        active: How many it has.
        min_rtt: Seconds in which it answers when it is not busy; 0 while unknown.
        measuring: `min_rtt` is being measured.
    """

    __slots__ = (
        "_adaptive", "_calm", "_calm_since", "_crowded", "_default", "_default_share", "_greedy",
        "_greedy_until", "_held", "_high", "_limits", "_max", "_measure_at", "_min", "_random", "_samples", "_share_at", "_sheddable_share", "_stuck",
        "_turned_away", "_window_ends", "active", "limit", "measuring", "min_rtt",
    )  # fmt: skip

    def __init__(self, spec: SheddingSpec, random: Callable[[], float], *, parts: int = 1) -> None:
        """
        Args:
            spec: What was configured.
            random: Between 0 and 1, for jitter.
            parts: Workers that give the same app its requests.
        """
        self._random = random
        self.active = 0
        self.min_rtt = 0.0
        self.measuring = False
        self._default_share, self._sheddable_share = DEFAULT_SHARE, SHEDDABLE_SHARE
        self._share_at = 0.0
        self._turned_away: set[str] = set()
        self._held: dict[str, int] = {}  # places, by identity
        self._crowded = False  # somebody was turned away who has not most of them
        self._greedy: str | None = None  # who has, and says too much
        self._greedy_until = 0.0
        self._high = 0  # most at once in this window
        self._samples: list[float] = []  # of this window
        self._calm: list[float] = []  # since `min_rtt` was taken
        self._calm_since = 0.0
        self._window_ends = 0.0
        self._measure_at = 0.0
        self._stuck = 0
        self.adopt(spec, parts=parts)

    def __repr__(self) -> str:
        return f"<LoadShedding {self.active} of {self.limit:.1f}>"

    def adopt(self, spec: SheddingSpec, *, parts: int = 1) -> None:
        """Obey another spec; who is let in already stays."""
        self._min = max(1, spec.min_limit // parts)
        self._max = max(self._min, spec.max_limit // parts)
        self._adaptive = spec.adaptive
        self._default: str = spec.default_criticality
        self.limit = float(max(1, spec.initial // parts))
        if spec.adaptive:
            self.limit = min(max(self.limit, self._min), self._max)
        self.measuring = False
        self._measure_at = 0.0
        self._set_limits()

    def _set_limits(self) -> None:
        """Note up to how many each criticality is let in."""
        limit = int(self.limit)
        ordinary = min(limit, self._min) if self.measuring else limit
        self._limits: dict[str, int] = {
            "critical": limit,
            "default": max(1, int(ordinary * self._default_share)),
            "sheddable": max(1, int(ordinary * self._sheddable_share)),
        }

    # One request ----------------------------------------------------------------------------------

    def admit(self, criticality: str | None, now: float, source: str = "") -> str | None:
        """
        Let a request in, and return None; or return as what it was turned away.

        Args:
            criticality: One of `contract.Criticality`, or None where it says nothing.
            now: On our clock.
            source: Identity of who asks; all without one are one.
        """
        kind = criticality or self._default
        if self._adaptive and now >= self._measure_at and not self.measuring:
            self._measure(now)
        if now >= self._share_at:
            self._share_out(now)
        held = self._held.get(source, 0)
        if source == self._greedy and held * 2 > self.active:
            kind = "sheddable"
        if self.active >= self._limits[kind]:
            self._turned_away.add(kind)
            if held * 2 <= self.active:
                self._crowded = True
            return kind
        self._held[source] = held + 1
        self.active = active = self.active + 1
        if active > self._high:
            self._high = active
        if active > self._min:
            self._calm_since = inf
        return None

    def _share_out(self, now: float) -> None:
        """Let those yield who are less critical than somebody who was turned away."""
        self._share_at = now + WINDOW
        turned = self._turned_away
        ordinary, least = self._default_share, self._sheddable_share
        ordinary = ordinary * YIELD if "critical" in turned else ordinary + REGAIN
        least = least * YIELD if turned - {"sheddable"} else least + REGAIN
        self._default_share = min(ordinary, DEFAULT_SHARE)
        self._sheddable_share = min(least, SHEDDABLE_SHARE)
        turned.clear()
        if self._crowded:
            self._crowded = False
            for identity, held in self._held.items():
                if held * 2 > self.active:  # at most one
                    self._greedy, self._greedy_until = identity, now + GREEDY
        if now >= self._greedy_until:
            self._greedy = None
        self._set_limits()

    def answered(self, status: int, grpc_status: str | None, seconds: float, now: float) -> None:
        """
        Note the head of an answer.

        Args:
            status: Of HTTP.
            seconds: Since it was let in.
            now: On our clock.
            grpc_status: As far as the head says it; None where it is no call of gRPC.
        """
        if self._adaptive and status < FAILED and grpc_status in _FINE:
            self._sample(seconds, now)

    def given_up(self, seconds: float, now: float) -> None:
        """Note that a request was given up without an answer: one would have taken even longer."""
        if self._adaptive and seconds > self.min_rtt > 0:
            self._sample(seconds, now)

    def release(self, now: float, source: str = "") -> None:
        """A request that was let in has ended."""
        self.active -= 1
        held = self._held[source] - 1
        if held:
            self._held[source] = held
        else:
            del self._held[source]
        if self.active == self._min:
            self._calm_since = now

    # The limit ------------------------------------------------------------------------------------

    def _sample(self, seconds: float, now: float) -> None:
        if now - seconds >= self._calm_since and len(self._calm) < MEASURE_SAMPLES:
            self._calm.append(seconds)
        if len(self._samples) < MAX_SAMPLES:
            self._samples.append(seconds)
        if self.measuring:
            if len(self._calm) >= MEASURE_SAMPLES or now >= self._window_ends:
                self._end_measuring(now)
        elif now >= self._window_ends and len(self._samples) >= MIN_SAMPLES:
            self._end_window(now)

    def _measure(self, now: float) -> None:
        """`min_rtt` is old: take it from what is known already, or make the app calm first."""
        if len(self._calm) >= MEASURE_SAMPLES:
            self._end_measuring(now)
            return
        self.measuring = True
        self._samples.clear()
        self._window_ends = now + MEASURE_AT_MOST
        self._set_limits()

    def _end_measuring(self, now: float) -> None:
        if len(self._calm) >= MIN_SAMPLES:
            self.min_rtt = _median(self._calm)
            self._calm.clear()
        elif not self.min_rtt:
            if len(self._samples) < MIN_SAMPLES:
                self._window_ends = now + MEASURE_AT_MOST
                return
            self.min_rtt = min(self._samples)  # never calm from the first request on: a first guess
        self.measuring = False
        self._stuck = 0
        self._measure_at = now + REMEASURE * (1 + JITTER * self._random())
        self._begin_window(now)
        self._set_limits()

    def _begin_window(self, now: float) -> None:
        self._samples.clear()
        self._high = self.active
        self._window_ends = now + WINDOW

    def statistics(self) -> dict[str, float | bool]:
        """Return its state, for `/clusters`."""
        return {
            "limit": int(self.limit),
            "active": self.active,
            "min_rtt_ms": round(self.min_rtt * 1000, 3),
            "measuring": self.measuring,
        }

    def _end_window(self, now: float) -> None:
        median = _median(self._samples)
        if median < self.min_rtt:
            self.min_rtt = median
        gradient = min(2.0, max(0.5, self.min_rtt * (1 + TOLERANCE) / median))
        wanted = self.limit * gradient + sqrt(self.limit)
        if wanted < self.limit or self._high * 2 >= self.limit:
            self.limit = min(max(wanted, self._min), self._max)
        self._begin_window(now)
        self._set_limits()
        self._stuck = self._stuck + 1 if self.limit <= self._min else 0
        if self._stuck >= STUCK:
            self._calm.clear()  # it may be of the time before whatever has changed
            self._measure(now)


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]

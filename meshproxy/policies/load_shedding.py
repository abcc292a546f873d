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

1) `min_rtt` is how fast the app answers when it is *calm*: the mean of requests that found at most
   `min_limit` there when they came, themselves included.
2) Every `WINDOW`, given enough samples, their mean says how fast it is now:
   `gradient = min_rtt * (1 + TOLERANCE) / now`, kept within 0.5 and 2;
   `limit = limit * gradient + sqrt(limit)`.
   While latency is as good as it was, the limit grows by its square root, which is how much queue is
   allowed; when the app queues, latency rises in proportion and the limit falls.  With c
   workers in the app it settles above c, at some 1.25 c + sqrt(c): enough to keep all of them busy.
3) A limit that is not used is not raised: what was not tried is not known to work.
4) `min_rtt` gets old (another version, a full cache), so it is taken anew about once a minute
   (with jitter, so that not all proxies do so together), and when the limit has been at its
   minimum for `STUCK` windows.  An app that was calm often enough in that minute has shown it by
   the way.  One that never was is *made* calm: only `min_limit` requests are let in until it is
   measured.  But **critical ones are never turned away for a measurement**: they keep the limit
   that was found; if they are too many to measure beside, the old value stays until next time.
   In between, a window that was clearly faster than `min_rtt` corrects it.
5) When the limit has been halved and the latency has not come down with it, it was not queueing that
   made it rise: the app itself has become slower, and `min_rtt` is taken anew at once.

**Where latency varies.**  An app that answers some requests in 1 ms and others in 100 makes chance look
like a queue.  A limit that believes it falls far below what the app can bear; so

* *the mean decides, not the median.*  With all c workers busy, throughput is c / (mean work), so by
  Little's law the mean latency at limit L is L / c times the mean work, whatever its distribution: the
  mean tells truly how much too much there is.  A median does not: where most requests are much faster
  than the mean, a small queue makes it several times what it was.
* *chance gets the benefit of the doubt.*  A window goes on until its mean is known to `PRECISE`, or for
  `LONGEST`; then what is compared is what `now` is at least, and what `min_rtt` is at most, each by its
  standard error.  And the fastest of hundreds of windows must not become `min_rtt` by luck.
* *slow requests must not be missed.*  Of requests that were undisturbed from beginning to end, as we
  once took them, too many are short ones.  So those count that *begin* in calm, and when a measurement
  ends, those that are not yet answered as well, with the time that they have taken so far.
* *a few must not weigh more than all others.*  What takes more than `CLIP` times `min_rtt` counts as so
  much, in both means alike.

What takes longer than a measurement may (`MEASURE_AT_MOST`) is not seen in it: an app of which a
noticeable share of the work takes seconds had better have a fixed limit.

Failures say nothing of how fast the app works and are no samples (500 and above, or a gRPC status); a
request that was given up without an answer is one if it had waited longer than `min_rtt`.

A request counts from when it is let in until its answer has ended.  One that switches protocols
(WebSocket) leaves the count then: it is no longer work on a request.

With several workers each has its part of the numbers below: their app is the same.

Called from: `Exchange.admit`, `Exchange.on_response_head`, `Exchange._finish`.
Configured by: `contract.SheddingSpec`.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
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

LONGEST: Final = 1.0
"""Seconds after which a window ends although its mean is not known precisely."""

MIN_SAMPLES: Final = 10
"""Below that, a window goes on: a mean of few is chance."""

PRECISE: Final = 0.1
"""Standard error of a mean, relative to it."""

CLIP: Final = 20.0

TOLERANCE: Final = 0.25
"""How much slower than `min_rtt` is not yet slow (Envoy's `buffer`)."""

REMEASURE: Final = 60.0
"""Seconds from one measurement of `min_rtt` to the next."""

JITTER: Final = 0.15
"""Share of `REMEASURE` that is added at random at most."""

MEASURE_SAMPLES: Final = 100
"""Fewer may all be fast ones; 25 of an app that is slow for one in ten are so in 7 of 100 cases."""

CALM_SAMPLES: Final = 250
"""Kept, the latest."""

MEASURE_AT_MOST: Final = 2.0
"""Seconds for one measurement where `min_rtt` is known; then the old value stays."""

STUCK: Final = 5
"""Windows at the minimum after which `min_rtt` is not believed any more."""

AGAIN: Final = 10.0
"""Seconds between two measurements at least, where the second would cost requests their places."""

FALLEN: Final = 0.75
"""What the latency must have come down to, when the limit was halved for it."""

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
        "_adaptive", "_began_calm", "_calm", "_crowded", "_default", "_default_share", "_deviation",
        "_fallen_from", "_flat", "_greedy", "_greedy_until", "_held", "_high", "_limits", "_max",
        "_measure_at", "_measured", "_min", "_random", "_share_at", "_sheddable_share", "_stuck",
        "_turned_away", "_window", "_window_began", "active", "limit", "measuring", "min_rtt",
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
        self._window = Mean()  # of this window's samples
        self._window_began = 0.0
        self._deviation = 0.0  # of requests in calm
        self._fallen_from = (0.0, 0.0)  # a limit, and the latency with it
        self._flat = 0  # windows in which it was no lower although the limit was
        self._measured = 0.0
        self._began_calm: set[float] = set()  # when requests were let in that are not answered yet
        self._calm: deque[float] = deque(maxlen=CALM_SAMPLES)  # since `min_rtt` was taken
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
        if active <= self._min and self._adaptive:
            self._began_calm.add(now)
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

    def answered(self, status: int, grpc_status: str | None, began: float, now: float) -> None:
        """
        Note the head of an answer.

        Args:
            status: Of HTTP.
            began: When it was let in.
            now: On our clock.
            grpc_status: As far as the head says it; None where it is no call of gRPC.
        """
        if self._adaptive and status < FAILED and grpc_status in _FINE:
            self._sample(began, now)
        else:
            self._began_calm.discard(began)

    def given_up(self, began: float, now: float) -> None:
        """Note that a request was given up without an answer: one would have taken even longer."""
        if self._adaptive and now - began > self.min_rtt > 0:
            self._sample(began, now)
        else:
            self._began_calm.discard(began)

    def handed_over(self, then: float, now: float) -> None:
        """Take a request for one that was let in now: its client had not said all of it before."""
        if then in self._began_calm:
            self._began_calm.discard(then)
            self._began_calm.add(now)

    def forget(self, began: float) -> None:
        """Expect no answer to a request that was let in then."""
        self._began_calm.discard(began)

    def release(self, source: str = "") -> None:
        """A request that was let in has ended."""
        self.active -= 1
        held = self._held[source] - 1
        if held:
            self._held[source] = held
        else:
            del self._held[source]

    # The limit ------------------------------------------------------------------------------------

    def _sample(self, began: float, now: float) -> None:
        seconds, usual = now - began, self.min_rtt
        if began in self._began_calm:
            self._began_calm.discard(began)
            self._calm.append(seconds)
        window = self._window
        window.add(min(seconds, CLIP * usual) if usual else seconds)
        lasted = now - self._window_began
        if self.measuring:
            if lasted >= MEASURE_AT_MOST or self._is_measured():
                self._end_measuring(now)
        elif (
            # As long as an answer takes, at least: before, a new limit cannot have shown its effect.
            lasted >= max(WINDOW, window.mean)
            and window.count >= MIN_SAMPLES
            and (lasted >= LONGEST or self._doubt() <= PRECISE * window.mean)
        ):
            self._end_window(now)

    def _doubt(self) -> float:
        """
        Return the standard error of the window's mean.

        Few samples may be alike by chance (ten fast ones of an app that is slow for one in ten), so
        it is no less than that of so many calm ones.
        """
        window = self._window
        return max(window.error, self._deviation / sqrt(window.count))

    def _is_measured(self) -> bool:
        """Say whether enough is known of how fast the app is when it is calm."""
        return len(self._calm) >= MEASURE_SAMPLES

    def _measure(self, now: float) -> None:
        """`min_rtt` is old: take it from what is known already, or make the app calm first."""
        if self._is_measured():
            self._end_measuring(now)
            return
        self.measuring = True
        self._begin_window(now)
        self._set_limits()

    def _end_measuring(self, now: float) -> None:
        calm = self._calm
        if len(calm) >= MIN_SAMPLES:
            known = Mean(calm).mean
            late = [now - began for began in self._began_calm if now - began > known]
            self._believe(clipped([*calm, *late]))
            calm.clear()
        elif not self.min_rtt:
            if self._window.count < MIN_SAMPLES:
                self._begin_window(now)
                return
            # Never calm from the first request on: a first guess, which the next windows correct.
            self.min_rtt = self._window.mean / 2
        self.measuring = False
        self._stuck = 0
        self._fallen_from = (0.0, 0.0)
        self._flat = 0
        self._measured = now
        self._measure_at = now + REMEASURE * (1 + JITTER * self._random())
        self._begin_window(now)
        self._set_limits()

    def _believe(self, calm: "Mean") -> None:
        """
        Take what was measured in calm for `min_rtt`, with the benefit of the doubt.

        Where the value before differs from it by no more than chance, both are true, and what is
        between them is surer than either.
        """
        # Few samples may be alike by chance: then what was known before of how they vary is truer.
        error = max(calm.error, self._deviation / sqrt(calm.count))
        found, known = calm.mean + calm.error, self.min_rtt
        near = known and abs(found - known) <= 3 * error
        self.min_rtt = (found + known) / 2 if near else found
        self._deviation = max(calm.error * sqrt(calm.count), self._deviation / 2)

    def _begin_window(self, now: float) -> None:
        self._window = Mean()
        self._high = self.active
        self._window_began = now

    def statistics(self) -> dict[str, float | bool]:
        """Return its state, for `/clusters`."""
        return {
            "limit": int(self.limit),
            "active": self.active,
            "min_rtt_ms": round(self.min_rtt * 1000, 3),
            "measuring": self.measuring,
        }

    def _end_window(self, now: float) -> None:
        mean, doubt = self._window.mean, self._doubt()
        self.min_rtt = min(self.min_rtt, mean + 2 * doubt)
        least = max(mean - doubt, mean / 2)
        gradient = min(2.0, max(0.5, self.min_rtt * (1 + TOLERANCE) / least))
        before, wanted = self.limit, self.limit * gradient + sqrt(self.limit)
        if wanted < before or self._high * 2 >= before:
            self.limit = min(max(wanted, self._min), self._max)
        self._begin_window(now)
        self._set_limits()
        self._stuck = self._stuck + 1 if self.limit <= self._min else 0
        slow = self._is_slow_by_itself(before, mean)
        if self._stuck >= STUCK or (slow and now >= self._measured + AGAIN):
            self._calm.clear()  # it may be of the time before whatever has changed
            self._began_calm.clear()
            self._measure(now)

    def _is_slow_by_itself(self, limit: float, latency: float) -> bool:
        """Say whether letting half as many requests in has not made them any faster."""
        before, then = self._fallen_from
        if limit > before:
            self._fallen_from = (limit, latency)
        elif limit <= before / 2:
            if latency > FALLEN * then:
                self._flat += 1
                return self._flat >= 2  # in the first, what had queued before was still there
            self._fallen_from = (limit, latency)
        self._flat = 0
        return False


class Mean:
    """
    The mean of what has been added, and how sure it is (Welford's algorithm).

    Attributes:
        count: Of samples.
    """

    __slots__ = ("_squares", "count", "mean")

    def __init__(self, samples: Iterable[float] = ()) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0
        for sample in samples:
            self.add(sample)

    def add(self, sample: float) -> None:
        self.count += 1
        apart = sample - self.mean
        self.mean += apart / self.count
        self._squares += apart * (sample - self.mean)

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        count = self.count
        return sqrt(self._squares / (count * (count - 1))) if count > 1 else 0.0


def clipped(samples: Sequence[float]) -> Mean:
    """
    Return the mean of samples, none of which counts as more than `CLIP` times that mean.

    Lowering the bound lowers the mean, and so the bound.  Where more than one in `CLIP` is
    large, they are no exceptions, and it ends at once; otherwise it converges.
    """
    mean = Mean(samples)
    for _ in range(20):
        bound = CLIP * mean.mean
        if max(samples) <= bound * 1.01:
            break
        mean = Mean(min(sample, bound) for sample in samples)
    return mean

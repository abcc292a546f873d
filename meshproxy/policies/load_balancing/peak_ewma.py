"""
Peak EWMA: of two drawn at random, the one from which an answer is to be expected sooner.

Theory of operation.  What the next request to an endpoint will take is estimated as

    latency * (requests in flight + 1)

where `latency` is a moving average of the time to the head of its answers, with a twist that gives
it its name (Finagle's, which Linkerd has, too): a sample *above* the average replaces it at once, one
below pulls it down slowly.  So an endpoint that turns slow is left alone after one bad answer,
and has to prove itself before it is trusted again.  Requests in flight alone (`least_request`)
notice slowness only while the slow endpoint is kept busy; latency remembers it.

**Time, not samples.**  A sample's part in the average is 1 - exp(-t/τ), t being the time since the
sample before it: a busy endpoint is not averaged over fewer seconds than a quiet one.  And where no
samples come, the estimate fades with exp(-t/τ), or who was slow once would never be asked again.
Below a hundredth of that, the straight line 1 - t/τ is as good as the exponential and
needs no call, and fading is not looked at: busy endpoints never compute one.

**Weights.**  Requests in flight count per weight, relative to the mean one.  The one to come counts
as one everywhere: an idle mesh shares by weight because of the draw (see `two_choices`), and if the
choice took the heavier one of two idle ones as well, weights would count twice.

**The unknown.**  An endpoint that has not answered yet costs nothing while it is idle, so it is
asked at once, and very much while the first answer is out, so it is asked once.

**Failures.**  Answering fast with an error is no merit: a failed attempt counts as one of a second,
or an endpoint that does nothing but fail would draw all traffic to itself.  (Outlier detection
ejects it in the end; until then it must not be the favourite.)  So does "too many requests"
(`is_overload`), which is no failure: Linkerd's load biaser has the same effect.  An error of the
app's own (500, gRPC INTERNAL) does not: the request may be to blame.

Called from: `Cluster.pick`, `Endpoint.judge`.   Configured by: `LoadBalancingSpec.algorithm`.
"""

from collections.abc import Callable, Collection, Sequence
from math import exp
from typing import Final

from .endpoint import E, Endpoint
from .two_choices import TwoChoices

DECAY: Final = 10.0
"""τ, in seconds; Finagle's and Linkerd's default."""

FAILED: Final = 1.0
"""Seconds that a failed attempt counts as, at least."""

UNKNOWN: Final = 1e6
"""Seconds that a second request to who has not answered its first is expected to take."""

_FRESH: Final = DECAY / 100

_OVERLOAD_GRPC: Final = "8"  # RESOURCE_EXHAUSTED


def is_overload(status: int, grpc_status: str | None) -> bool:
    """Say whether an answer, though it is one, asks for fewer requests."""
    return status == 429 or grpc_status == _OVERLOAD_GRPC


def observe(endpoint: Endpoint, seconds: float, now: float) -> None:
    """Take note of what the answer to an attempt took."""
    latency = endpoint.latency
    if seconds < latency:
        quiet = (now - endpoint.measured) / DECAY
        if quiet < 0.01:
            endpoint.latency = latency + (seconds - latency) * quiet
        else:
            endpoint.latency = seconds + (latency - seconds) * exp(-quiet)
    else:
        endpoint.latency = seconds
    endpoint.measured = now


class PeakEwma(TwoChoices[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_mean", "_now")

    def __init__(
        self, endpoints: Sequence[E], random: Callable[[], float], now: Callable[[], float]
    ) -> None:
        super().__init__(endpoints, random)
        self._now = now
        self._mean = self._total / self._count if self._count else 0.0
        self.move()

    def pick(self, avoid: Collection[E] | None, key: int | None = None) -> E | None:  # noqa: ARG002
        endpoints = self._level
        if endpoints is None or avoid is not None:
            # Beside an app there is nobody else; and `draw` would be a call.
            return self._endpoints[0] if self._count == 1 else self.draw(avoid)
        window = self._window
        if window is not None:
            now = self._now()
            first, second = window.draw(now)
            one, two = first.latency * (first.active + 1), second.latency * (second.active + 1)
            fresh = now - _FRESH
            if first.measured < fresh or second.measured < fresh:  # who has just come by
                one, two = cost(first, now, self._mean), cost(second, now, self._mean)
            chosen = second if two < one else first
            if not chosen.active:
                return chosen
        # As nearly always.  One random number is enough for both draws: what is behind the point
        # says nothing about what is before.
        point = self._random() * self._count
        place = int(point)
        other = int((point - place) * self._others)
        first, second = endpoints[place], endpoints[other + 1 if other >= place else other]
        now = self._now()
        one, two = first.latency * (first.active + 1), second.latency * (second.active + 1)
        one_at, two_at = first.measured, second.measured
        if one_at > now - _FRESH and two_at > now - _FRESH:
            return second if two < one else first
        if one and two:  # of many endpoints each is asked rarely: `cost`, for equal weights
            one, two = one * exp((one_at - now) / DECAY), two * exp((two_at - now) / DECAY)
            return second if two < one else first
        return self.better(first, second)

    def better(self, first: E, second: E) -> E:
        now, mean = self._now(), self._mean
        return second if cost(second, now, mean) < cost(first, now, mean) else first


def cost(endpoint: Endpoint, now: float, mean: float = 1.0) -> float:
    """Return how many seconds the next request is expected to take; `mean` is that of all weights."""
    latency = endpoint.latency
    load = endpoint.active * mean / endpoint.weight
    if not latency:
        return UNKNOWN * load
    quiet = now - endpoint.measured
    if quiet > _FRESH:
        latency *= exp(-quiet / DECAY)
    return latency * (load + 1)

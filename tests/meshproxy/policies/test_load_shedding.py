from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from statistics import stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.policies import Criticality, SheddingSpec
from meshproxy.policies.load_shedding import (
    GREEDY,
    JITTER,
    MEASURE_AT_MOST,
    REMEASURE,
    WINDOW,
    LoadShedding,
    Mean,
    clipped,
)


def shedding(**more: Any) -> LoadShedding:
    return LoadShedding(SheddingSpec(**more), Random(3).random)


def fill(app: LoadShedding, kind: Criticality | None = None, now: float = 0.0) -> int:
    """Let in as many as may come; return how many that were."""
    count = 0
    while app.admit(kind, now) is None:
        count += 1
    return count


# Who goes first ------------------------------------------------------------------------------------


def test_steps() -> None:
    """Up to 80 % of the limit anybody, up to 95 % the ordinary, up to all of it the critical."""
    app = shedding(adaptive=False, initial=100)
    assert fill(app, "sheddable") == 80
    assert fill(app, "default") == 15
    assert fill(app, "critical") == 5
    assert app.admit("critical", 0.0) == "critical"
    app.release()
    assert app.admit("sheddable", 0.0) == "sheddable"
    assert app.admit("default", 0.0) == "default"
    assert app.admit("critical", 0.0) is None


def test_who_says_nothing() -> None:
    """Is as critical as the policy says."""
    assert fill(shedding(adaptive=False, initial=100)) == 95
    assert fill(shedding(adaptive=False, initial=100, default_criticality="sheddable")) == 80


@pytest.mark.parametrize("limit", range(1, 30))
def test_everybody_is_let_in_where_nothing_runs(limit: int) -> None:
    """However low the limit; and from 2 on, a place is left for who is critical."""
    app = shedding(adaptive=False, initial=limit)
    assert fill(app, "sheddable") >= 1
    fill(app, "default")
    assert fill(app, "critical") >= (limit > 1)
    assert app.active == limit


@given(st.lists(st.sampled_from(["critical", "default", "sheddable", "end"]), max_size=300))
def test_never_more_than_the_limit(events: list[Any]) -> None:
    """Whatever comes and goes, and never a less critical request where a more critical is refused."""
    app = shedding(adaptive=False, initial=10)
    for event in events:
        if event == "end":
            if app.active:
                app.release()
            continue
        before = app.active
        refused = app.admit(event, 0.0)
        assert app.active == before + (refused is None) <= 10
        assert refused is None or before >= {"critical": 10, "default": 9, "sheddable": 8}[event]


def test_workers_share() -> None:
    """Four workers of one app let in what one would."""
    spec = SheddingSpec(adaptive=False, initial=40)
    assert fill(LoadShedding(spec, Random(1).random, parts=4), "critical") == 10


# How many ------------------------------------------------------------------------------------------


Varies = Callable[[Random], float]


def bimodal(share: float) -> Varies:
    """Return what gives 1 or 100, scaled to a mean of 1; 100 to this share."""
    mean = 1 + 99 * share
    return lambda random: (100 if random.random() < share else 1) / mean


VARYING: dict[str, Varies] = {
    "uniform": lambda random: random.uniform(0.9, 1.1),
    "exponential": lambda random: random.expovariate(1),
    "lognormal, sigma 1": lambda random: random.lognormvariate(-0.5, 1),
    "1 ms or 100 ms": bimodal(0.5),
    "1 ms, every tenth 100 ms": bimodal(0.1),
    "1 ms, every fiftieth 100 ms": bimodal(0.02),
}
"""How long an app works on a request."""

varying = pytest.mark.parametrize("varies", VARYING.values(), ids=list(VARYING))


class App:
    """
    So many workers, each busy with one request for some `work` seconds; the rest queue.

    The requests come at random at `rate` per second, each with a criticality of its own.

    Attributes:
        work: The mean; how it varies says `varies`, which makes a work of mean 1.
        busy: Seconds that workers have worked.
        waited: Seconds from being let in to the answer, of all requests that were served.
        limits: The limit at each request that came.
    """

    def __init__(
        self,
        policy: LoadShedding,
        workers: int,
        work: float,
        seed: int = 5,
        varies: Varies = lambda random: random.uniform(0.9, 1.1),
    ) -> None:
        self.policy = policy
        self.workers = workers
        self.work = work
        self.varies = varies
        self.now = 0.0
        self.random = Random(seed)
        self.forget()
        self._queue: deque[tuple[float, str]] = deque()
        self._busy: list[tuple[float, float, str]] = []  # ends, began, kind
        self._next = 0.0

    def run(self, seconds: float, rate: float, kinds: tuple[Criticality, ...]) -> None:
        until = self.now + seconds
        self._next = self.now
        while self._next < until:
            if self._busy and self._busy[0][0] <= self._next:
                self.now, began, kind = heappop(self._busy)
                self.policy.answered(200, None, began, self.now)
                self.policy.release()
                self.served[kind] += 1
                self.waited += self.now - began
            else:
                self.now = self._next
                self._next += self.random.expovariate(rate)
                wanted = self.random.choice(kinds)
                self.asked[wanted] += 1
                self.limits.append(self.policy.limit)
                if self.policy.admit(wanted, self.now) is None:
                    self._queue.append((self.now, wanted))
            while self._queue and len(self._busy) < self.workers:
                began, kind = self._queue.popleft()
                took = self.work * self.varies(self.random)
                self.busy += took
                heappush(self._busy, (self.now + took, began, kind))

    def forget(self) -> None:
        """Count anew."""
        self.asked = {"critical": 0, "default": 0, "sheddable": 0}
        self.served = dict.fromkeys(self.asked, 0)
        self.busy = self.waited = 0.0
        self.since = self.now
        self.limits: list[float] = []

    @property
    def used(self) -> float:
        """What share of its workers' time has been put to use."""
        return self.busy / (self.workers * (self.now - self.since))

    @property
    def slowness(self) -> float:
        """How many times the mean work a request has taken, queue included."""
        return self.waited / sum(self.served.values()) / self.work


@varying
@pytest.mark.parametrize("seed", [1, 2])
def test_a_saturated_app_is_kept_busy_and_not_more(varies: Varies, seed: int) -> None:
    """
    However much its latency varies: at twice what it can do, nineteen twentieths of its 20 workers'
    time are put to use, measurements included, and who is let in takes less than three times what the
    work takes.  Nine tenths of the time the limit is between the workers and three and a half times
    as many.
    """
    app = App(shedding(), 20, 0.02, seed, varies)
    app.run(2, 500, ("default",))
    app.run(6, 2_000, ("default",))
    app.forget()
    app.run(16, 2_000, ("default",))
    limits = sorted(app.limits)
    assert app.used >= 0.95
    assert app.slowness <= 3
    assert 20 <= limits[len(limits) // 20] <= limits[-len(limits) // 20] <= 70
    assert app.served["default"] < 0.6 * app.asked["default"]


@varying
def test_an_app_that_bears_its_load_gets_it(varies: Varies) -> None:
    """At seven tenths of what it can do, hardly anybody is turned away, but to measure."""
    app = App(shedding(), 20, 0.02, 3, varies)
    app.run(6, 700, ("default",))
    app.forget()
    app.run(16, 700, ("default",))
    assert app.served["default"] >= 0.95 * app.asked["default"]


@varying
def test_after_an_overload_everybody_is_let_in_again(varies: Varies) -> None:
    """Within a second or two."""
    app = App(shedding(), 20, 0.02, 4, varies)
    app.run(2, 500, ("default",))
    app.run(8, 4_000, ("default",))
    app.run(2, 500, ("default",))
    app.forget()
    app.run(10, 500, ("default",))
    assert app.served["default"] >= 0.97 * app.asked["default"]


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize(
    "varies",
    [VARYING[name] for name in ("uniform", "lognormal, sigma 1", "1 ms or 100 ms")],
    ids=["uniform", "lognormal", "bimodal"],
)
def test_an_app_that_turns_slower_is_measured_anew(varies: Varies, times: int) -> None:
    """
    Twice or five times as slow at twice its load: letting fewer in does not help, so that is no
    queue, and the limit is back long before the next measurement would have been due.  (What is
    missing of the time that is used goes into a further measurement.)
    """
    app = App(shedding(), 20, 0.02, 5, varies)
    app.run(2, 500, ("default",))
    app.run(12, 2_000, ("default",))
    app.work *= times
    app.run(REMEASURE / 4, 2_000 / times, ("default",))
    app.forget()
    app.run(10, 2_000 / times, ("default",))
    assert app.used >= 0.8
    assert app.slowness <= 3


def test_the_mean_knows_how_sure_it_is() -> None:
    """As statistics has it; of one, nothing is known."""
    assert Mean([2.0]).error == 0
    samples = [1.0, 2.0, 4.0, 9.0]
    found = Mean(samples)
    assert (found.count, found.mean) == (4, 4.0)
    assert found.error == pytest.approx(stdev(samples) / 2)


def test_a_few_slow_ones_do_not_outweigh_all_others() -> None:
    """One in a hundred counts as twenty times the mean; what is no exception is not cut."""
    assert clipped([1.0] * 99 + [10_000.0]).mean == pytest.approx(0.99 / 0.8, rel=0.05)
    assert clipped([1.0] * 90 + [100.0] * 10).mean == pytest.approx(10.9)
    assert clipped([1.0] * 3).mean == 1


@pytest.mark.parametrize("workers", [6, 10, 40, 100])
def test_a_plausible_limit_is_found_under_overload(workers: int) -> None:
    """With four times what the app can do, the limit settles above its workers, not far above."""
    app = App(shedding(), workers, 0.02)
    app.run(1, 0.5 * workers / 0.02, ("default",))
    app.run(20, 4 * workers / 0.02, ("default",))
    assert workers <= app.policy.limit <= 2.2 * workers
    assert app.policy.min_rtt == pytest.approx(0.02, rel=0.2)


def test_critical_requests_live_through_an_overload() -> None:
    """
    At four times the capacity, a fifth of it critical: these are served, the app stays busy, and
    those who are served do not wait long.
    """
    app = App(shedding(), 20, 0.02)
    app.run(1, 500, ("default",))
    app.run(10, 4_000, ("critical", "default", "default", "sheddable", "sheddable"))
    app.forget()
    began = app.now
    app.run(120, 4_000, ("critical", "default", "default", "sheddable", "sheddable"))
    assert app.served["critical"] >= 0.99 * app.asked["critical"]
    assert app.served["default"] > app.served["sheddable"]
    assert sum(app.served.values()) >= 0.9 * 1_000 * (app.now - began)


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    """That it would hold is not known."""
    app = App(shedding(initial=20), 100, 0.02)
    app.run(30, 60, ("default",))
    assert app.policy.limit <= 25


def test_the_limit_follows_an_app_that_has_become_slower() -> None:
    """After the next measurement, the new latency is the normal one, and the limit is back."""
    app = App(shedding(), 20, 0.01)
    app.run(20, 4_000, ("default",))
    before = app.policy.limit
    app.work = 0.05
    app.run(2 * REMEASURE * (1 + JITTER), 4_000, ("default",))
    assert app.policy.min_rtt == pytest.approx(0.05, rel=0.3)
    assert app.policy.limit == pytest.approx(before, rel=0.5)


def test_bounds() -> None:
    """The limit stays between its least and its most, whatever the latency."""
    app = App(shedding(min_limit=3, initial=10, max_limit=12), 100, 0.02)
    app.run(20, 8_000, ("default",))
    assert app.policy.limit == 12
    slow = App(shedding(min_limit=3, initial=10, max_limit=12), 1, 0.02)
    slow.run(20, 8_000, ("default",))
    assert 3 <= slow.policy.limit < 8


def test_a_measurement_spares_the_critical() -> None:
    """While the app is made calm, critical requests keep the limit that was found."""
    app = shedding(initial=100, min_limit=4)
    assert app.admit("default", 0.0) is None
    assert app.measuring
    assert fill(app, "sheddable") + fill(app, "default") == 2
    assert fill(app, "critical") == 97


def test_a_measurement_beside_too_many_critical_ones_is_given_up() -> None:
    """The old value stays, and everybody else has waited for no longer than a moment."""
    app = App(shedding(), 20, 0.02)
    app.run(5, 4_000, ("critical",))
    known = app.policy.min_rtt
    assert known > 0
    app.run(REMEASURE * (1 + JITTER), 4_000, ("critical",))
    app.run(MEASURE_AT_MOST + 1, 4_000, ("critical",))
    assert not app.policy.measuring
    assert app.policy.min_rtt <= known


def test_failures_are_no_samples() -> None:
    """An error is fast, and says nothing of how fast the app works."""
    app = shedding()
    for turn in range(100):
        app.admit(None, 0.01 * turn)
        app.answered(500, None, 0.01 * turn, 0.01 * turn + 0.000_1)
        app.release()
    assert app.min_rtt == 0


def test_given_up_requests_lower_the_limit() -> None:
    """Who waits in vain shows an overload, although no answer came."""
    app = App(shedding(), 20, 0.02)
    app.run(10, 900, ("default",))
    before, now = app.policy.limit, app.now
    for _ in range(200):
        now += 0.01
        app.policy.given_up(now - 1.0, now)
    assert app.policy.limit < before / 2


def test_another_spec_keeps_who_is_in() -> None:
    """The requests under way still count."""
    app = shedding(adaptive=False, initial=10)
    fill(app, "critical")
    app.adopt(SheddingSpec(adaptive=False, initial=20))
    assert fill(app, "critical") == 10


def test_an_identity_that_calls_everything_critical_leaves_others_their_part() -> None:
    """As soon as they are turned away for it, its requests are the first to be turned away."""
    app = shedding(initial=20, adaptive=False)
    while app.admit("critical", 0.0, "greedy") is None:
        pass
    assert app.admit("default", 0.0, "modest") == "default"
    for _ in range(8):
        app.release("greedy")
    assert app.admit("critical", WINDOW, "greedy") is not None
    assert app.admit("default", WINDOW, "modest") is None
    later = WINDOW + GREEDY + 0.001
    assert app.admit("critical", later, "greedy") is None


def test_an_identity_that_is_alone_is_believed() -> None:
    """What it calls critical is served before what it does not, as ever."""
    app = shedding(initial=20, adaptive=False)
    while app.admit("default", 0.0, "only") is None:
        pass
    for turn in range(1, 20):
        assert app.admit("default", turn * WINDOW, "only") == "default"
    assert app.admit("critical", 20 * WINDOW, "only") is None


def test_who_holds_places_is_forgotten_with_the_last() -> None:
    """Also where nobody holds any more when it is looked at."""
    app = shedding(initial=1, adaptive=False)
    assert app.admit("default", 0.0, "a") is None
    assert app.admit("default", 0.0, "b") is not None
    app.release("a")
    assert app.admit("default", 1.0, "b") is None
    app.release("b")
    assert app.active == 0

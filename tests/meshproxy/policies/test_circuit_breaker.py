"""The breaker's table of states, and the breaker beside a model that is too simple to be wrong."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshproxy.contract.policies import CircuitBreakerSpec
from meshproxy.policies.circuit_breaker import (
    BUCKETS,
    CLOSED,
    HALF_OPEN,
    HALF_OPEN_RETRY,
    OPEN,
    CircuitBreaker,
)

SPEC = CircuitBreakerSpec(
    window=10_000, min_requests=4, failure_percent=50, open_time=5_000, max_open_time=12_000, probes=2
)  # fmt: skip


class Scene:
    """A breaker and a clock."""

    def __init__(self, spec: CircuitBreakerSpec = SPEC) -> None:
        self.now = 100.0
        self.changes: list[tuple[str, str]] = []
        self.breaker = CircuitBreaker(spec, self._on_changed)

    def _on_changed(self, why: str) -> None:
        self.changes.append((self.breaker.state, why))

    def ask(self, answers: str) -> str:
        """
        Make a request for each letter, 10 ms after the one before.

        `+` succeeds, `-` fails, `s` is slow, `x` is given up.  Return for each of them `.` if it
        was let through, `!` if not.
        """
        passed = ""
        for answer in answers:
            self.now += 0.01
            if not self.breaker.admits(self.now):
                passed += "!"
                continue
            passed += "."
            self.judge(answer, self.now)
        return passed

    def judge(self, answer: str, began: float) -> None:
        if answer == "+":
            self.breaker.succeeded(0.1, began, self.now)
        elif answer == "s":
            self.breaker.succeeded(9.0, began, self.now)
        elif answer == "-":
            self.breaker.failed(began, self.now)
        else:
            self.breaker.given_up(began)

    @property
    def states(self) -> list[str]:
        return [state for state, _ in self.changes]


def test_it_trips_on_the_share_of_failures() -> None:
    """Half of the last requests, and not before there were enough of them."""
    scene = Scene()
    assert scene.ask("+-+") == "..."
    assert scene.breaker.state == CLOSED
    assert scene.ask("-+") == ".!"
    assert scene.changes == [(OPEN, "2 of 4 requests failed; for 5 s")]


def test_few_requests_prove_nothing() -> None:
    """Three failures of three at night leave it closed."""
    scene = Scene()
    scene.ask("---")
    assert scene.breaker.state == CLOSED


def test_what_is_old_is_forgotten() -> None:
    """The window moves on; after a long silence it is empty."""
    scene = Scene()
    scene.ask("---")
    scene.now += 11.0
    scene.ask("-++++")
    assert scene.breaker.state == CLOSED
    assert scene.breaker.statistics(scene.now)["requests"] == 5


def test_slowness_trips_it_only_where_asked() -> None:
    """With `slow_percent`, requests above the threshold count; without, they are successes."""
    slow = CircuitBreakerSpec(min_requests=4, failure_percent=None, slow_percent=75.0)
    scene = Scene(slow)
    scene.ask("ss+s")
    assert scene.changes == [(OPEN, "3 of 4 requests were slow; for 5 s")]
    other = Scene()
    other.ask("ssss")
    assert other.breaker.state == CLOSED


def test_failures_can_be_ignored() -> None:
    """With slowness alone to go by."""
    scene = Scene(CircuitBreakerSpec(min_requests=1, failure_percent=None, slow_percent=100.0))
    scene.ask("----")
    assert scene.breaker.state == CLOSED


def test_open_it_refuses_until_its_time_is_over() -> None:
    """And says how long that is."""
    scene = Scene()
    scene.ask("----")
    opened = scene.now
    assert scene.ask("++++") == "!!!!"
    assert round(scene.breaker.retry_after(scene.now), 6) == 4.96
    scene.now = opened + 4.98
    assert scene.ask("+") == "!"
    assert scene.ask("+") == "."
    assert scene.breaker.state == HALF_OPEN


def test_half_open_lets_so_many_through_and_no_more() -> None:
    """The others are refused while these are out, and may come again soon."""
    scene = Scene()
    scene.ask("----")
    scene.now += 5.0
    assert [scene.breaker.admits(scene.now) for _ in range(4)] == [True, True, False, False]
    assert scene.breaker.retry_after(scene.now) == HALF_OPEN_RETRY
    assert scene.states == [OPEN, HALF_OPEN]


def test_it_closes_when_all_probes_have_succeeded() -> None:
    """With an empty window: what was before is over."""
    scene = Scene()
    scene.ask("----")
    scene.now += 5.0
    assert scene.ask("++") == ".."
    assert scene.states == [OPEN, HALF_OPEN, CLOSED]
    assert scene.ask("---") == "..."
    assert scene.breaker.state == CLOSED


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_cap() -> None:
    """5 s, 10 s, then 12 s for ever; closing begins again with 5 s."""
    scene = Scene()
    scene.ask("----")
    for seconds in (5, 10, 12, 12):
        assert round(scene.breaker.retry_after(scene.now)) == seconds
        scene.now += seconds
        assert scene.ask("-") == "."
    scene.now += 12.0
    scene.ask("++")
    assert scene.breaker.state == CLOSED
    scene.ask("----")
    assert round(scene.breaker.retry_after(scene.now)) == 5


def test_a_slow_probe_is_a_failed_one_where_slowness_counts() -> None:
    """What made it trip is what it asks about."""
    scene = Scene(CircuitBreakerSpec(min_requests=1, slow_percent=50.0))
    scene.ask("s")
    scene.now += 5.0
    scene.ask("s")
    assert scene.states == [OPEN, HALF_OPEN, OPEN]


def test_a_probe_whose_client_leaves_is_given_back() -> None:
    """Or two clients without patience would keep the service closed."""
    scene = Scene()
    scene.ask("----")
    scene.now += 5.0
    assert scene.ask("xxxx++") == "......"
    assert scene.breaker.state == CLOSED


def test_probes_that_do_not_return_are_waited_for_as_long_as_it_was_open() -> None:
    """Then others are let through, and what becomes of the first ones does not matter."""
    scene = Scene()
    scene.ask("----")
    scene.now += 5.0
    first = scene.now
    assert [scene.breaker.admits(scene.now) for _ in range(3)] == [True, True, False]
    scene.now += 5.0
    assert scene.ask("+") == "."
    scene.judge("-", first)
    assert scene.breaker.state == HALF_OPEN
    assert scene.ask("+") == "."
    assert scene.states == [OPEN, HALF_OPEN, CLOSED]


def test_what_began_before_counts_no_more() -> None:
    """Requests that the service swallowed while it was ill do not trip it once it is well."""
    scene = Scene()
    old = scene.now
    scene.ask("----")
    for answer in "-+x":
        scene.judge(answer, old)
    assert scene.states == [OPEN]
    scene.now += 5.0
    scene.breaker.admits(scene.now)
    for answer in "-+x":
        scene.judge(answer, old)
    assert scene.breaker.state == HALF_OPEN
    scene.ask("x")
    assert scene.ask("+") == "."
    scene.judge("+", scene.now)
    for answer in "-----":
        scene.judge(answer, old)
    assert scene.breaker.state == CLOSED


def test_failures_at_the_moment_of_opening_do_not_double_the_time() -> None:
    """A clock may stand still between two events."""
    scene = Scene()
    scene.ask("---")
    scene.breaker.failed(scene.now, scene.now)
    scene.breaker.failed(scene.now, scene.now)
    scene.breaker.succeeded(0.1, scene.now, scene.now)
    assert scene.states == [OPEN]


def test_statistics() -> None:
    """What an operator asks in /clusters."""
    scene = Scene()
    scene.ask("+-")
    assert scene.breaker.statistics(scene.now) == {
        "state": "closed", "requests": 2, "failed": 1, "slow": 0,
    }  # fmt: skip
    assert repr(scene.breaker) == "<CircuitBreaker closed, 1 of 2 failed>"
    scene.ask("--")
    assert scene.breaker.statistics(scene.now)["retry_after_seconds"] == 5.0


# Beside a model -----------------------------------------------------------------------------------


@dataclass
class Model:
    """The same rules with a list of all requests in place of buckets and counters."""

    spec: CircuitBreakerSpec
    state: str = CLOSED
    since: float = float("-inf")
    until: float = 0.0
    openings: int = 0
    seen: list[tuple[float, bool]] = field(default_factory=list)
    out: int = 0
    good: int = 0

    def admits(self, now: float) -> bool:
        if self.state == CLOSED:
            return True
        if now >= self.until and (self.state == OPEN or self.out + self.good >= self.spec.probes):
            self.state, self.since, self.until = HALF_OPEN, now, now + self.until - self.since
            self.out = self.good = 0
        if self.state == OPEN or self.out + self.good >= self.spec.probes:
            return False
        self.out += 1
        return True

    def open(self, now: float) -> None:
        seconds = min(self.spec.open_time * 2**self.openings, self.spec.max_open_time) / 1000
        self.openings += 1
        self.state, self.since, self.until = OPEN, now, now + seconds

    def judge(self, answer: str, began: float, now: float) -> None:
        if began < self.since or self.state == OPEN:
            return
        if self.state == HALF_OPEN:
            self.out -= 1
            if answer == "-":
                self.open(now)
            elif answer == "+":
                self.good += 1
                if self.good == self.spec.probes:
                    self.state, self.since, self.openings, self.seen = CLOSED, now, 0, []
        elif answer != "x":
            self.seen.append((now, answer == "-"))

    def share(self, now: float, window: float) -> tuple[int, int]:
        recent = [failed for when, failed in self.seen if when > now - window]
        return len(recent), sum(recent)


class Machine(RuleBasedStateMachine):
    """
    Requests begin, end in any order, and time goes by.

    A window of buckets is between nine tenths and the whole of the time that it stands for: the
    breaker may trip where both readings of the window say so, and must.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.model = Model(SPEC)
        self.under_way: list[float] = []
        self.ticks = 0

    @property
    def breaker(self) -> CircuitBreaker:
        return self.scene.breaker

    @rule(milliseconds=st.sampled_from([1, 50, 500, 1_100, 5_000, 12_000]))
    def wait(self, milliseconds: int) -> None:
        self.scene.now += milliseconds / 1000

    @rule()
    def begin(self) -> None:
        self.scene.now += 0.001
        passes = self.breaker.admits(self.scene.now)
        assert passes == self.model.admits(self.scene.now)
        if passes:
            self.under_way.append(self.scene.now)

    @precondition(lambda self: self.under_way)
    @rule(answer=st.sampled_from("+++---x"), which=st.integers(0, 9))
    def end(self, answer: str, which: int) -> None:
        self.scene.now += 0.001
        now = self.scene.now
        began = self.under_way.pop(which % len(self.under_way))
        was_closed = self.model.state == CLOSED and began >= self.model.since
        self.model.judge(answer, began, now)
        self.scene.judge(answer, began)
        if was_closed and answer == "-":
            window, bucket = SPEC.window / 1000, SPEC.window / 1000 / BUCKETS
            ages = {now - when for when, _ in self.model.seen}
            between = {age for age in ages if window - bucket <= age <= window}
            verdicts = set()
            for length in {window - bucket, window, *between}:
                requests, failed = self.model.share(now, length)
                verdicts.add(requests >= SPEC.min_requests and failed * 2 >= requests)
            if verdicts == {True}:
                assert self.breaker.state == OPEN
            if verdicts == {False}:
                assert self.breaker.state == CLOSED
            if self.breaker.state == OPEN:
                self.model.open(now)

    @invariant()
    def both_agree(self) -> None:
        assert self.breaker.state == self.model.state
        assert self.breaker.openings == self.model.openings
        if self.breaker.state == OPEN:
            longest = SPEC.max_open_time / 1000
            assert self.breaker.retry_after(self.scene.now) <= longest

    @invariant()
    def half_open_lets_no_more_than_its_probes_through(self) -> None:
        if self.breaker.state == HALF_OPEN:
            probes = [began for began in self.under_way if began >= self.breaker.since]
            assert len(probes) <= SPEC.probes


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@given(st.lists(st.sampled_from("+-sx"), max_size=60), st.integers(1, 30))
@settings(deadline=None)
def test_it_never_trips_on_fewer_than_the_minimum(answers: list[str], minimum: int) -> None:
    """Whatever happens."""
    scene = Scene(CircuitBreakerSpec(min_requests=minimum, slow_percent=1.0, failure_percent=1.0))
    for number, answer in enumerate(answers):
        scene.ask(answer)
        if scene.breaker.state == OPEN:
            assert number + 1 >= minimum
            break

"""Who is ejected, for how long, and how it comes back; and what must hold whatever happens."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshproxy.contract.policies import OutlierSpec
from meshproxy.policies.outlier_detection import (
    EJECTED,
    IN_SERVICE,
    NEVER,
    PROBATION,
    Host,
    OutlierDetection,
)

SPEC = OutlierSpec(
    consecutive_5xx=4,
    consecutive_gateway_errors=3,
    consecutive_local_failures=2,
    interval=10_000,
    base_ejection=30_000,
    max_ejection=80_000,
    max_ejected_percent=50.0,
)


class Scene:
    """Hosts `a`, `b`, `c`, …, who watches them, and a clock."""

    def __init__(self, spec: OutlierSpec = SPEC, hosts: int = 3) -> None:
        self.now = 100.0
        self.changes: list[str] = []
        self.prevented: list[str] = []
        self.hosts = [Host(name) for name in "abcdefghijklmnopqrst"[:hosts]]
        self.detection = OutlierDetection(
            spec,
            lambda host, why: self.changes.append(f"{host.name} {host.state}: {why}"),
            lambda host, why: self.prevented.append(f"{host.name}: {why}"),
        )
        self.detection.obey(spec, self.hosts, self.now)

    def answer(self, host: int, answers: str, began: float | None = None) -> None:
        """`+` success, `5` a 500, `g` a gateway error, `l` a local failure, `x` given up."""
        for answer in answers:
            self.now += 0.001
            one, then = self.hosts[host], self.now if began is None else began
            if answer == "x":
                self.detection.given_up(one, began=then)
                continue
            one.requests += 1
            if answer == "+":
                if one.remarkable:
                    self.detection.succeeded(one, then, self.now)
            elif answer == "l":
                self.detection.failed_locally(one, began=then, now=self.now)
            else:
                self.detection.answered_5xx(one, gateway=answer == "g", began=then, now=self.now)

    def sleep(self, seconds: float) -> None:
        """Let time go by, and everything happen that falls due."""
        until = self.now + seconds
        while self.detection.due <= until:
            self.now = self.detection.due
            self.detection.tick(self.now)
        self.now = until

    @property
    def states(self) -> list[str]:
        return [host.state for host in self.hosts]


# Who is ejected -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ("ggg", "consecutive-gateway-errors"),
        ("5555", "consecutive-5xx"),
        ("5g55", "consecutive-5xx"),
        ("ll", "consecutive-local-failures"),
        ("gglgg", "consecutive-gateway-errors"),  # no connection: nothing about its answers
        ("gg5", None),
        ("gg5gg", "consecutive-5xx"),
        ("gg+gg+555+l+l", None),
        ("lg", None),
        ("lgl", None),  # it has answered, so it was there
        ("x" * 20, None),
    ],
)
def test_in_a_row(answers: str, why: str | None) -> None:
    """Each kind has a count of its own; a success ends them all."""
    scene = Scene()
    scene.answer(0, answers)
    assert scene.changes == ([] if why is None else [f"a ejected: {why}"])


def test_what_is_not_configured_does_not_count() -> None:
    """All three can be switched off."""
    spec = OutlierSpec(consecutive_gateway_errors=None, consecutive_local_failures=None)
    scene = Scene(spec)
    scene.answer(0, "g" * 50 + "l" * 50 + "5" * 50)
    assert scene.changes == []


def test_success_rate() -> None:
    """Who succeeds much less often than the others is out at the end of the interval."""
    spec = OutlierSpec(success_rate=True, min_requests=10, consecutive_gateway_errors=None)
    scene = Scene(spec, hosts=6)
    for host in range(5):
        scene.answer(host, "+++++++++5")
    scene.answer(5, "+++++55555")
    scene.sleep(9.8)
    assert scene.changes == []
    scene.sleep(0.3)
    assert scene.changes == ["f ejected: success-rate"]


def test_success_rate_needs_hosts_and_requests() -> None:
    """Of four hosts, or of ten requests, no statistics are made."""
    spec = OutlierSpec(success_rate=True, min_requests=10)
    for hosts, requests in ((4, 10), (6, 9)):
        scene = Scene(spec, hosts=hosts)
        for host in range(hosts):
            scene.answer(host, ("5" if host == 0 else "+") * requests)
        scene.sleep(10.1)
        assert scene.changes == []


def test_failure_percentage() -> None:
    """At least that share, of those with enough requests; the worst first, where not all may go."""
    spec = OutlierSpec(failure_percent=50.0, min_requests=4, min_hosts=2, max_ejected_percent=25.0)
    scene = Scene(spec, hosts=4)
    scene.answer(0, "5+5+")
    scene.answer(1, "555+")
    scene.answer(2, "+++5")
    scene.answer(3, "555")
    scene.sleep(10.1)
    assert scene.changes == ["b ejected: failure-percentage"]
    assert scene.prevented == ["a: failure-percentage"]


def test_each_interval_is_counted_for_itself() -> None:
    """Failures of the last one are over."""
    spec = OutlierSpec(failure_percent=50.0, min_requests=4, min_hosts=1)
    scene = Scene(spec)
    scene.answer(0, "555")
    scene.sleep(10.1)
    scene.answer(0, "5+++")
    scene.sleep(10.1)
    assert scene.changes == []


# How many ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "percent", "out"),
    [(1, 100, 0), (2, 10, 1), (3, 100, 2), (10, 10, 1), (10, 35, 3), (20, 10, 2), (5, 0, 1)],
)
def test_so_many_and_no_more(hosts: int, percent: float, out: int) -> None:
    """One may always be ejected, unless it is the last one; others up to the percentage."""
    spec = OutlierSpec(consecutive_gateway_errors=1, max_ejected_percent=percent)
    scene = Scene(spec, hosts)
    for host in range(hosts):
        scene.answer(host, "g")
    assert scene.states.count(EJECTED) == out
    assert len(scene.prevented) == hosts - out


def test_when_others_leave_the_excess_comes_back() -> None:
    """Who would have come back first; what is known about the others stays."""
    scene = Scene(OutlierSpec(consecutive_gateway_errors=1, max_ejected_percent=50.0), hosts=6)
    for host in (2, 0, 1):
        scene.answer(host, "g")
    scene.detection.obey(scene.detection.spec, scene.hosts[:4], scene.now)
    assert scene.states == [EJECTED, EJECTED, IN_SERVICE, IN_SERVICE, IN_SERVICE, IN_SERVICE]
    assert scene.detection.out == 2
    scene.detection.obey(scene.detection.spec, scene.hosts[:1], scene.now)
    assert scene.states[0] == IN_SERVICE


# How long ------------------------------------------------------------------------------------------


def test_ejected_for_longer_each_time_up_to_a_cap() -> None:
    """30 s, 60 s, 80 s, 80 s: the probe fails each time."""
    scene = Scene()
    scene.answer(0, "ggg")
    host = scene.hosts[0]
    for seconds in (30, 60, 80, 80):
        assert round(host.until - host.since) == seconds
        scene.sleep(seconds + 0.1)
        assert host.state == PROBATION
        assert scene.detection.probe(host, scene.now)
        scene.answer(0, "g")
        assert host.state == EJECTED


def test_time_in_service_makes_old_stories_forgotten() -> None:
    """One ejection less with each interval; then nothing is due any more."""
    scene = Scene()
    host = scene.hosts[0]
    scene.answer(0, "ggg")
    scene.sleep(30.1)
    scene.answer(0, "g")
    scene.sleep(60.1)
    scene.answer(0, "+")
    assert (host.state, host.ejections) == (IN_SERVICE, 2)
    scene.sleep(20.1)
    assert host.ejections == 0
    assert scene.detection.due == NEVER


# Probation -----------------------------------------------------------------------------------------


def test_one_probe_at_a_time() -> None:
    """Until it returns, is given up, or has been out for too long."""
    scene = Scene()
    host = scene.hosts[0]
    scene.answer(0, "ggg")
    scene.sleep(30.1)
    assert [scene.detection.probe(host, scene.now) for _ in range(3)] == [True, False, False]
    scene.answer(0, "x")
    assert [scene.detection.probe(host, scene.now) for _ in range(2)] == [True, False]
    scene.now += 30.0
    assert [scene.detection.probe(host, scene.now) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("answer", "state"), [("+", IN_SERVICE), ("g", EJECTED), ("l", EJECTED), ("5", EJECTED)]
)
def test_the_probe_decides(answer: str, state: str) -> None:
    """A 500 is a failure where 500s count."""
    scene = Scene()
    scene.answer(0, "ggg")
    scene.sleep(30.1)
    scene.answer(0, answer)
    assert scene.states[0] == state
    assert scene.detection.out == (state == EJECTED)


def test_a_500_is_an_answer_where_500s_do_not_count() -> None:
    """It was ejected for not being there, and is there."""
    scene = Scene(OutlierSpec(consecutive_gateway_errors=1))
    scene.answer(0, "g")
    scene.sleep(30.1)
    scene.answer(0, "5")
    assert scene.states[0] == IN_SERVICE


def test_what_began_before_says_nothing() -> None:
    """What was on its way when it was ejected, and a probe that was given up for lost."""
    scene = Scene()
    old = scene.now
    scene.answer(0, "ggg")
    scene.answer(0, "+gl5x", began=old)
    assert scene.changes == ["a ejected: consecutive-gateway-errors"]
    scene.sleep(30.1)
    scene.detection.probe(scene.hosts[0], scene.now)
    probe = scene.now
    scene.answer(0, "+gl5x", began=old)
    assert scene.states[0] == PROBATION
    scene.sleep(30.1)
    scene.detection.probe(scene.hosts[0], scene.now)
    scene.answer(0, "g", began=probe)
    assert scene.states[0] == PROBATION
    scene.answer(0, "+")
    assert scene.states[0] == IN_SERVICE


def test_a_host_that_nobody_watches_any_more_is_as_new() -> None:
    """Detection was switched off."""
    scene = Scene()
    scene.answer(0, "ggg")
    scene.hosts[0].forget()
    assert repr(scene.hosts[0]) == "<Host a in-service, 0 ejections>"
    assert not scene.hosts[0].remarkable


# Whatever happens ----------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Answers of all kinds, early and late, from hosts that come and go, while time goes by."""

    def __init__(self) -> None:
        super().__init__()
        spec = OutlierSpec(
            consecutive_5xx=2, consecutive_gateway_errors=2, consecutive_local_failures=1,
            failure_percent=60.0, success_rate=True, min_hosts=2, min_requests=2,
            interval=5_000, base_ejection=7_000, max_ejection=20_000, max_ejected_percent=40.0,
        )  # fmt: skip
        self.scene = Scene(spec, hosts=8)
        self.all = list(self.scene.hosts)
        self.before = [(host.state, host.since) for host in self.all]

    @property
    def watched(self) -> tuple[Host, ...]:
        return self.scene.detection.hosts

    @rule(
        host=st.integers(0, 7),
        answers=st.text("+5glx", min_size=1, max_size=6),
        ago=st.floats(0, 9),
    )
    def answer(self, host: int, answers: str, ago: float) -> None:
        if self.all[host] in self.watched:
            self.scene.answer(host, answers, None if ago < 5 else self.scene.now - ago)

    @rule(host=st.integers(0, 7))
    def probe(self, host: int) -> None:
        one = self.all[host]
        if (
            one in self.watched
            and one.state == PROBATION
            and self.scene.detection.probe(one, self.scene.now)
        ):
            assert not self.scene.detection.probe(one, self.scene.now)

    @rule(seconds=st.sampled_from([0.5, 3.0, 8.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.scene.sleep(seconds)

    @rule(present=st.sets(st.integers(0, 7), min_size=1))
    def change(self, present: set[int]) -> None:
        hosts = [self.all[number] for number in sorted(present)]
        self.scene.detection.obey(self.scene.detection.spec, hosts, self.scene.now)
        self.scene.sleep(0.0)  # somebody's time may have passed while it was away

    @invariant()
    def never_too_many_and_never_the_last(self) -> None:
        out = sum(host.state != IN_SERVICE for host in self.watched)
        assert out == self.scene.detection.out
        assert out <= max(1, len(self.watched) * 40 // 100)
        assert out < len(self.watched)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        ejected = [host for host in self.watched if host.state == EJECTED]
        assert all(host.until > self.scene.now for host in ejected)
        assert self.scene.detection.due <= min((host.until for host in ejected), default=NEVER)
        assert all(7 <= round(host.until - host.since, 6) <= 20 for host in ejected)

    @invariant()
    def states_follow_the_table(self) -> None:
        follows = {
            IN_SERVICE: {IN_SERVICE, EJECTED},
            EJECTED: {EJECTED, PROBATION, IN_SERVICE},  # the last: others have left
            PROBATION: {PROBATION, IN_SERVICE, EJECTED},
        }
        for host, (state, since) in zip(self.all, self.before, strict=True):
            # Within one step of the test a host may go all the way round.
            assert host.since != since or host.state in follows[state]
        self.before = [(host.state, host.since) for host in self.all]


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

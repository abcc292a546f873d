"""Peak EWMA: what it learns from answers, and who gets less for it."""

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.moving_window import MANY, TURNS
from meshproxy.policies.load_balancing.peak_ewma import (
    DECAY,
    PeakEwma,
    cost,
    is_overload,
    observe,
)
from tests.helpers.balancing import Server, chances, picks, servers


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


def test_a_peak_counts_at_once() -> None:
    """One slow answer is believed; what was fast before is no excuse."""
    server = Server(latency=0.01, measured=100.0)
    observe(server, 2.0, 100.1)
    assert (server.latency, server.measured) == (2.0, 100.1)


@pytest.mark.parametrize("quiet", [0.0, 0.001, 0.05, 0.2, 5.0, 60.0])
def test_what_is_better_counts_by_time(quiet: float) -> None:
    """After t seconds the past has exp(-t/τ) of the say, however many samples there were."""
    server = Server(latency=2.0, measured=100.0)
    observe(server, 1.0, 100.0 + quiet)
    assert server.latency == pytest.approx(1 + exp(-quiet / DECAY), rel=1e-4)


def test_many_samples_forget_no_faster_than_few() -> None:
    """A thousand good answers within a second, or one at its end: about the same."""
    busy, quiet = Server(latency=2.0, measured=0.0), Server(latency=2.0, measured=0.0)
    for number in range(1, 1001):
        observe(busy, 0.001, number / 1000)
    observe(quiet, 0.001, 1.0)
    assert busy.latency == pytest.approx(quiet.latency, rel=0.001)


def test_a_clock_that_stands_still_divides_nothing_by_nothing() -> None:
    """Many answers can come at the same moment, or one that began before another ended."""
    server = Server(latency=2.0, measured=100.0)
    for now in (100.0, 100.0, 99.0):
        observe(server, 1.0, now)
        assert 1.0 <= server.latency <= 2.3


def test_without_samples_the_estimate_fades() -> None:
    """Who was slow is asked again some time, or nobody would ever know that it has recovered."""
    server = Server(latency=1.0, measured=100.0)
    costs = [cost(server, 100.0 + seconds) for seconds in (0, 1, 10, 60, 600)]
    assert costs == sorted(costs, reverse=True)
    assert costs[2] == pytest.approx(exp(-1))
    assert costs[-1] < 1e-9


def test_what_is_in_flight_multiplies() -> None:
    """The next answer comes after those that are waited for."""
    assert cost(Server(active=3, latency=0.5, measured=100.0), 100.0) == 2.0


def test_the_unknown_is_asked_once() -> None:
    """At once when it is idle, and then not before it has answered."""
    clock = Clock()
    known, new = servers(1, 1)
    known.latency, known.measured, known.active = 0.002, clock.time, 50
    policy = PeakEwma((known, new), chances(), clock)
    assert policy.pick(None) is new
    new.active = 1
    assert {policy.pick(None) for _ in range(20)} == {known}


def test_a_slow_endpoint_gets_less() -> None:
    """
    Requests come one after the other, so nobody is ever busy: requests in flight would tell nothing.

    Of a thousand, the endpoint that takes 100 times as long gets the first and hardly one more.
    """
    clock = Clock()
    all_ = servers(1, 1, 1)
    takes = dict(zip(all_, (0.005, 0.005, 0.5), strict=True))
    policy = PeakEwma(all_, chances(), clock)
    counts = dict.fromkeys(all_, 0)
    for _ in range(1_000):
        picked = policy.pick(None)
        assert picked is not None
        counts[picked] += 1
        clock.time += takes[picked]
        observe(picked, takes[picked], clock.time)
    fast, other, slow = counts.values()
    assert slow <= 10
    assert min(fast, other) > 350


def test_who_recovers_comes_back() -> None:
    """After a bad answer an endpoint is left alone for some time, then it is asked again."""
    clock = Clock()
    all_ = servers(1, 1)
    policy = PeakEwma(all_, chances(), clock)
    for server in all_:
        observe(server, 0.005, clock.time)
    observe(all_[0], 1.0, clock.time)

    def in_ten_seconds() -> int:
        count = 0
        for _ in range(1_000):
            clock.time += 0.01
            picked = policy.pick(None)
            assert picked is not None
            count += picked is all_[0]
            observe(picked, 0.005, clock.time)
        return count

    shares = [in_ten_seconds() for _ in range(30)]
    assert shares[0] == 0
    assert min(shares[-5:]) > 50


def test_very_many_that_are_alike_share_exactly() -> None:
    """After each revolution of the window everybody has had as many requests."""
    clock = Clock()
    all_ = servers(*[1] * MANY)
    for server in all_:
        server.latency, server.measured = 0.005, clock.time
    policy = PeakEwma(all_, chances(), clock)
    for _ in range(3):
        assert picks(policy, TURNS * MANY) == dict.fromkeys(all_, TURNS)


def test_slow_ones_among_very_many_get_less() -> None:
    """One in sixteen takes ten times as long: they get a tenth of a share, or less."""
    clock = Clock()
    all_ = servers(*[1] * MANY)
    slow = all_[::16]
    policy = PeakEwma(all_, chances(), clock)
    counts = dict.fromkeys(all_, 0)
    for revolution in range(6):
        for _ in range(TURNS * MANY):
            picked = policy.pick(None)
            assert picked is not None
            counts[picked] += revolution > 0  # in the first one they are found out
            clock.time += 0.0005
            observe(picked, 0.05 if picked in slow else 0.005, clock.time)
    share = sum(counts.values()) / len(all_)
    assert max(counts[server] for server in slow) <= share
    assert sum(counts[server] for server in slow) / len(slow) < share / 10


def test_who_is_new_among_very_many_is_asked_when_the_window_comes_by() -> None:
    """And until it has answered, once."""
    clock = Clock()
    all_ = servers(*[1] * MANY)
    for server in all_[1:]:
        server.latency, server.measured = 0.005, clock.time
    policy = PeakEwma(all_, chances(), clock)
    for _ in range(TURNS * MANY):
        picked = policy.pick(None)
        assert picked is not None
        if picked is all_[0]:
            picked.active += 1
    assert all_[0].active == 1


States = st.tuples(st.integers(0, 20), st.floats(1e-4, 10.0) | st.just(0.0), st.floats(0.0, 100.0))
"""Requests in flight, latency, seconds since it was measured."""


@given(States, States)
def test_of_two_the_cheaper_is_picked(
    one: tuple[int, float, float], two: tuple[int, float, float]
) -> None:
    """However long ago they were asked, and if never: what `pick` works out itself is `cost`."""
    clock = Clock()
    both = servers(1, 1)
    for server, (active, latency, quiet) in zip(both, (one, two), strict=True):
        server.active, server.latency = active, latency
        server.measured = clock.time - quiet if latency else float("-inf")
    picked = PeakEwma(both, chances(), clock).pick(None)
    assert picked is not None
    least = min(cost(server, clock.time) for server in both)
    assert cost(picked, clock.time) <= least * 1.011  # within `_FRESH`, both count as fresh


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_weights_multiply_what_an_endpoint_can_do(seed: int, weights: list[int]) -> None:
    """When requests stay, endpoints of equal latency hold their weights' shares."""
    all_ = servers(*weights)
    for server in all_:
        server.latency, server.measured = 0.01, 1_000.0
    policy = PeakEwma(all_, chances(seed), lambda: 1_000.0)
    for _ in range(1_000):
        picked = policy.pick(None)
        assert picked is not None
        picked.active += 1
    for server in all_:
        assert abs(server.active - 1_000 * server.weight / sum(weights)) < 100


@pytest.mark.parametrize(
    ("status", "grpc_status", "overload"),
    [
        (200, None, False),
        (429, None, True),
        (503, None, False),
        (200, "8", True),
        (200, "0", False),
    ],
)
def test_which_answers_ask_for_less(status: int, grpc_status: str | None, overload: bool) -> None:
    """The endpoint is well, but others may be better off."""
    assert is_overload(status, grpc_status) is overload

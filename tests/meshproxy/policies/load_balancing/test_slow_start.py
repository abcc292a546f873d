"""Slow start: a new endpoint's share grows, and everybody else's shrinks for it."""

import pytest

from meshproxy.policies.load_balancing.consistent_hashing import KEYS, ConsistentHashing
from meshproxy.policies.load_balancing.ring_hash import Ring
from meshproxy.policies.load_balancing.slow_start import LEAST, SlowStart
from meshproxy.policies.load_balancing.weighted_random import WeightedRandom
from tests.helpers.balancing import Server, chances, picks, servers

WINDOW = 10.0
ROUNDS = 20_000


def share(all_: tuple[Server, ...], new: Server, now: float) -> float:
    """Return which part of its fair share a new endpoint gets."""
    random = chances()
    policy = SlowStart(WeightedRandom(all_, random), all_, WINDOW, random, lambda: now)
    fair = ROUNDS / len(all_)
    return picks(policy, ROUNDS)[new] / fair


@pytest.mark.parametrize("others", [1, 4])
def test_the_share_grows_with_time(others: int) -> None:
    """From a tenth to all of it, in a straight line."""
    *_, new = all_ = servers(*[1] * (others + 1))
    new.since = 100.0
    shares = [share(all_, new, 100.0 + seconds) for seconds in range(12)]
    assert shares[0] == pytest.approx(LEAST, abs=0.03)
    for seconds in range(1, 10):
        assert shares[seconds] == pytest.approx(seconds / 10, abs=0.07)
        assert shares[seconds] > shares[seconds - 1] - 0.02
    assert shares[10] == pytest.approx(1, abs=0.07)


def test_nobody_can_spare_them_when_all_are_new() -> None:
    """Then they share as usual."""
    all_ = servers(1, 1, 1)
    for server in all_:
        server.since = 100.0
    assert share(all_, all_[0], 100.5) == pytest.approx(1, abs=0.05)


def test_many_new_ones_do_not_drown_in_what_one_old_one_cannot_take() -> None:
    """Of ten endpoints nine are new: together they get about what their part of a share is."""
    old, *new = all_ = servers(*[1] * 10)
    for server in new:
        server.since = 100.0
    of_the_old = share(all_, old, 101.0) / 10
    assert 0.3 < of_the_old < 0.6  # by weight 1 : 9 * 0.1 it would be 0.53


def test_who_is_new_is_better_than_who_has_just_failed() -> None:
    """A second attempt does not go back to the first endpoint to spare the other."""
    failed, new = all_ = servers(1, 1)
    new.since = 100.0
    random = chances()
    policy = SlowStart(WeightedRandom(all_, random), all_, WINDOW, random, lambda: 100.0)
    assert {policy.pick((failed,), None) for _ in range(50)} == {new}


def test_keys_move_to_a_new_endpoint_one_by_one_and_stay() -> None:
    """The share comes from the key: what the new one has been given is not taken away again."""
    *_, new = all_ = servers(1, 1, 1, 1)
    new.since = 100.0
    random = chances()
    hashing = ConsistentHashing(Ring(all_), all_, all_, random)
    keys = [int(random() * KEYS) for _ in range(4_000)]
    taken: set[int] = set()
    for now in (100.0, 102.0, 105.0, 109.0, 111.0):
        policy = SlowStart(hashing, all_, WINDOW, random, lambda now=now: now)  # type: ignore[misc]
        mine = {key for key in keys if policy.pick(None, key) is new}
        assert taken <= mine
        taken = mine
    assert taken == {key for key in keys if hashing.pick(None, key) is new}

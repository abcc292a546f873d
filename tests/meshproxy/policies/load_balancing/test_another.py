"""Further attempts go round: nobody is asked twice while somebody was not asked."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.another import another
from tests.helpers.balancing import Server
from tests.meshproxy.policies.load_balancing.test_endpoint import (
    Algorithm,
    balancing,
    clusters,
    each_algorithm,
)


@each_algorithm
@settings(max_examples=60, deadline=None)
@given(
    endpoints=clusters,
    attempts=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    key=st.none() | st.integers(0, 2**64 - 1),
    slow_start=st.sampled_from([0, 10_000]),
)
def test_all_are_tried_before_any_is_tried_again(
    algorithm: Algorithm,
    endpoints: list[Server],
    attempts: int,
    seed: int,
    key: int | None,
    slow_start: int,
) -> None:
    """
    Whatever the algorithm, the priorities, and who is in slow start: the first attempts meet as many
    endpoints as there are, later ones all but the last one before they meet any for the third time.
    """
    for number, endpoint in enumerate(endpoints):
        endpoint.name = f"10.0.0.{number}:80"
    able = [e for e in endpoints if e.weight]
    balancer = balancing(algorithm, seed, slow_start).among(endpoints, endpoints)
    first = balancer.pick(None, key)
    if first is None:
        assert not able
        return
    order = [first]
    tried: tuple[Server, ...] = (first,)
    for _ in range(attempts):
        picked, tried = another(balancer.pick, tried, key)
        assert picked is not None
        order.append(picked)
        tried = (*tried, picked)
    count = len(able)
    assert len(set(order[:count])) == min(count, len(order))
    if count > 1:
        assert all(one is not other for one, other in pairwise(order))
        # A round after the first begins with who came last in the one before.
        for begin in range(count - 1, len(order) - count + 1, count - 1):
            assert len(set(order[begin : begin + count])) == count


def test_a_new_round_begins_when_others_are_gone() -> None:
    """Those that were tried may have left in the meantime; then there is nobody to be spared."""
    one, two, gone = Server(name="1"), Server(name="2"), Server(name="3")
    balancer = balancing("random").among((one, two), (one, two))
    assert another(balancer.pick, (gone, one), None) == (two, (gone, one))
    assert another(balancer.pick, (gone, two, one), None) == (two, (one,))


def test_where_nobody_is_left_there_is_nobody() -> None:
    """The caller says so."""
    balancer = balancing("round-robin").among((), ())
    assert another(balancer.pick, (Server(),), None)[0] is None

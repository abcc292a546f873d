"""Limits of time: what is configured, what is compiled from it, and who has spent the time."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.grpc import timeout_field, timeout_of
from meshproxy.contract.policies import RetrySpec
from meshproxy.contract.resources import ClusterSpec
from meshproxy.policies.deadline import (
    FAR,
    LEAST,
    NO_TIMEOUTS,
    Overrides,
    Timeouts,
    blame,
    of_cluster,
    seconds,
    spender,
)
from meshproxy.policies.propagation import deadline_field, read

# What is configured -------------------------------------------------------------------------------


def test_zero_is_no_limit() -> None:
    """Gateway API: "Setting a timeout to the zero duration SHOULD disable the timeout completely"."""
    assert (seconds(0), seconds(None), seconds(1500)) == (inf, inf, 1.5)


def test_by_default_only_silence_has_a_limit() -> None:
    """Five minutes without anything that moves; nothing for tunnels, and no timer from the start."""
    limits = of_cluster(ClusterSpec(name="catalog"))
    assert limits == NO_TIMEOUTS._replace(idle=300.0, first=75.0)
    assert not limits.soon


def test_what_a_cluster_says() -> None:
    """Each limit has its place; the nearer of the two of an attempt is known."""
    limits = of_cluster(
        ClusterSpec(
            name="catalog",
            request_timeout=30_000,
            backend_request_timeout=20_000,
            stream_idle_timeout=0,
            tunnel_idle_timeout=60_000,
            max_stream_duration=90_000,
            retry=RetrySpec(per_try_timeout=15_000),
        )
    )
    assert limits == Timeouts(
        request=30.0, attempt=20.0, answer=15.0, idle=inf, tunnel_idle=60.0, duration=90.0,
        of_attempt=15.0, first=15.0, soon=False, near=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["request", "attempt", "answer"])
def test_a_route_has_its_say_over_the_cluster(name: str) -> None:
    """What it says holds, also that there is no limit; the rest stays as it is."""
    cluster = Timeouts(request=5.0, attempt=5.0, answer=5.0, idle=7.0)
    said = {"request": None, "attempt": None, "answer": None}
    for value in (2.0, inf):
        limits = Overrides(**(said | {name: value})).over(cluster)
        assert getattr(limits, name) == value
        assert limits.idle == 7.0
        others = {"request", "attempt", "answer"} - {name}
        assert all(getattr(limits, other) == 5.0 for other in others)


def test_a_route_is_compiled_once_for_each_kind_of_cluster() -> None:
    """The same object again, so that a request costs a look-up."""
    overrides = Overrides(2.0, None, None)
    assert overrides.over(NO_TIMEOUTS) is overrides.over(Timeouts())
    assert overrides.over(Timeouts(idle=5.0)).idle == 5.0


@pytest.mark.parametrize("name", ["request", "attempt", "idle", "duration"])
def test_near_limits_are_armed_at_once(name: str) -> None:
    """The look at all exchanges comes every few seconds: before a limit that is `FAR` away."""
    overrides = Overrides(None, None, None)
    nearer: dict[str, Any] = {name: FAR - 0.1}
    further: dict[str, Any] = {name: FAR}
    assert overrides.over(NO_TIMEOUTS._replace(**nearer)).soon
    assert not overrides.over(NO_TIMEOUTS._replace(**further)).soon


# Who has spent the time ---------------------------------------------------------------------------


def test_the_one_that_took_the_most_is_named() -> None:
    """Nobody, where nobody is known to have taken what can be said."""
    assert spender([("", 9.0), ("default/a", 0.2), ("default/b", 0.95)]) == ("default/b", 0.95)
    assert spender([("", 9.0), ("default/a", LEAST / 2)]) == ("", 0.0)
    assert spender([]) == ("", 0.0)
    assert blame("default/b", 0.95) == "default/b took 950 ms of it"
    assert blame("", 0.0) == ""


# Along a chain ------------------------------------------------------------------------------------

HOPS = st.lists(
    st.tuples(
        st.floats(0, 2),  # spent before the next hop hears of it
        st.one_of(st.just(inf), st.floats(0.001, 60)),  # what the hop's route allows
        st.booleans(),  # whether it is said in gRPC's field
    ),
    min_size=1,
    max_size=8,
)


@given(st.floats(0.001, 3600), HOPS)
def test_a_deadline_never_grows_along_a_chain(
    first: float, hops: list[tuple[float, float, bool]]
) -> None:
    """Whatever the fields, the routes and the time that passes: each hop has less than the one before."""
    now, deadline = 1000.0, 1000.0 + first
    for spent, allowed, is_grpc in hops:
        left_before = deadline - now
        now += spent
        left = deadline - now
        if left < LEAST:
            return  # refused: there is no next hop
        if is_grpc:
            said = timeout_of([timeout_field(left)])
            assert said is not None
            heard = now + said
        else:
            heard = read([deadline_field(left)], now).deadline
        deadline = min(heard, now + allowed)
        assert deadline - now <= left_before - spent + 1e-6

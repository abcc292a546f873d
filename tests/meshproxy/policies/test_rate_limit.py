from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec, ValueMatchSpec
from meshproxy.contract.policies import RateLimitSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, field
from meshproxy.policies.rate_limit import LOOK, Limit, RateLimit, Refused

ALICE, BOB = "spiffe://test.mesh/ns/default/sa/alice", "spiffe://test.mesh/ns/default/sa/bob"


def spec(**more: Any) -> RateLimitSpec:
    settings: dict[str, Any] = {"name": "api", "requests": 2, **more}
    return RateLimitSpec(**settings)


def asking(*specs: RateLimitSpec, **more: Any) -> Callable[..., Refused | list[Field]]:
    """Return a function that asks for a request at a time."""
    limits = RateLimit([Limit(one, **more) for one in specs])

    def ask(now: float, *fields: Field, who: str | None = None) -> Refused | list[Field]:
        return limits.ask(RequestHead(b"GET", b"catalog", b"/", list(fields)), who, now)

    return ask


def passes(result: Refused | list[Field]) -> bool:
    return not isinstance(result, Refused)


def told(result: Refused | list[Field]) -> dict[str, str]:
    """Return what the answer says of limits."""
    fields = result.fields if isinstance(result, Refused) else result
    return {line.split(b": ")[0].decode(): value.decode() for _, value, line in fields}


@given(
    requests=st.integers(1, 20),
    interval=st.integers(1, 5_000),
    burst=st.none() | st.integers(1, 30),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_never_more_than_burst_and_rate(
    requests: int, interval: int, burst: int | None, gaps: list[float]
) -> None:
    """Over any interval of t seconds at most `burst + rate * t` requests pass."""
    ask = asking(spec(requests=requests, interval=interval, burst=burst))
    rate = requests / interval * 1000
    now, passed = 1_000.0, []
    for gap in gaps:
        now += gap
        if passes(ask(now)):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = (burst or requests) + rate * (passed[last] - passed[first])
            assert last - first + 1 <= allowed + 1e-6


@given(requests=st.integers(1, 20), interval=st.integers(10, 5_000), burst=st.integers(1, 30))
def test_what_is_allowed_is_granted(requests: int, interval: int, burst: int) -> None:
    """A full bucket gives `burst` tokens at once, and then one each time the rate brings one."""
    ask = asking(spec(requests=requests, interval=interval, burst=burst))
    assert all(passes(ask(10.0)) for _ in range(burst))
    assert not passes(ask(10.0))
    one = interval / 1000 / requests
    for turn in range(1, 5):
        assert passes(ask(10.0 + turn * one * 1.000001))


def test_a_caller_is_told_what_is_left() -> None:
    """Policy and state with each answer; with a refusal, when to come back."""
    ask = asking(spec(requests=2, interval=10_000))
    assert told(ask(0.0)) == {"RateLimit-Policy": '"api";q=2;w=10', "RateLimit": '"api";r=1;t=5'}
    assert told(ask(0.0))["RateLimit"] == '"api";r=0;t=10'
    refused = ask(1.0)
    assert isinstance(refused, Refused)
    assert refused.limit == "api"
    assert told(refused) == {
        "RateLimit-Policy": '"api";q=2;w=10',
        "RateLimit": '"api";r=0;t=9',
        "Retry-After": "4",
    }
    assert passes(ask(5.0))


def test_a_refusal_takes_no_token() -> None:
    """Who keeps knocking is let in as soon as who waits."""
    ask = asking(spec(requests=1, interval=1_000))
    assert passes(ask(0.0))
    assert not any(passes(ask(0.1 * turn)) for turn in range(1, 10))
    assert passes(ask(1.0))


def test_of_several_limits_none_is_charged_when_one_refuses() -> None:
    """A minute's limit is not used up by what the second's limit turns away."""
    second, minute = spec(name="second", requests=1), spec(name="minute", requests=2)
    minute = spec(name="minute", requests=3, interval=60_000)
    ask = asking(second, minute)
    assert passes(ask(0.0))
    for _ in range(10):
        refused = ask(0.5)
        assert isinstance(refused, Refused)
        assert refused.limit == "second"
    assert told(ask(1.0))["RateLimit"] == '"second";r=0;t=1, "minute";r=1;t=39'
    assert told(ask(1.0))["RateLimit-Policy"] == '"second";q=1;w=1, "minute";q=3;w=60'


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from([None, "a", "b", "c"])), min_size=1, max_size=60
    )
)
def test_refused_requests_leave_no_trace(asked: list[tuple[float, str | None]]) -> None:
    """With any limits and callers, leaving out the refused requests changes no verdict."""

    def limits() -> Callable[..., Refused | list[Field]]:
        return asking(
            spec(name="all", requests=4, interval=1_000),
            spec(name="each", requests=2, interval=1_500, per="identity"),
        )

    ask, again, now, admitted = limits(), limits(), 0.0, []
    for gap, who in asked:
        now += gap
        if passes(ask(now, who=who)):
            admitted.append((now, who))
    assert all(passes(again(now, who=who)) for now, who in admitted)


def test_each_identity_has_a_bucket() -> None:
    """One caller's greed is not the other's problem; those without identity share a bucket."""
    ask = asking(spec(requests=1, per="identity"))
    assert passes(ask(0.0, who=ALICE))
    assert not passes(ask(0.0, who=ALICE))
    assert passes(ask(0.0, who=BOB))
    assert passes(ask(0.0))
    assert not passes(ask(0.0))


def test_each_value_of_a_header_has_a_bucket() -> None:
    """Also a long one; leaving the header out is no way around the limit."""
    ask = asking(spec(requests=1, per="header", header="X-Tenant"))
    one, other = field(b"x-tenant", b"a" * 10_000), field(b"X-Tenant", b"b")
    assert passes(ask(0.0, one))
    assert not passes(ask(0.0, one))
    assert passes(ask(0.0, other))
    assert passes(ask(0.0))
    assert not passes(ask(0.0))


def test_only_what_is_meant_is_counted() -> None:
    """Match and source choose; a request that no limit means is told nothing."""
    meant = MatchSpec(headers=(ValueMatchSpec(name="x-batch", value="1"),))
    source = IdentityMatchSpec(principals=("spiffe://test.mesh/ns/default/*",))
    ask = asking(spec(requests=1, match=meant, source=source), spec(name="b", requests=1, source=IdentityMatchSpec(principals=(BOB,))))  # fmt: skip
    batch = field(b"x-batch", b"1")
    assert ask(0.0) == ask(0.0, batch) == ask(0.0, who=ALICE) == []
    assert told(ask(0.0, batch, who=ALICE))["RateLimit-Policy"] == '"api";q=1;w=1'
    assert not passes(ask(0.0, batch, who=ALICE))
    assert passes(ask(9.0, batch, who=BOB))


def test_buckets_are_bounded() -> None:
    """Newcomers beyond the cap share one bucket; who has one keeps it; full ones make room."""
    ask = asking(spec(requests=1, interval=10_000, per="identity"), buckets=2)
    assert passes(ask(0.0, who="a"))
    assert passes(ask(5.0, who="b"))
    assert passes(ask(5.0, who="c"))
    refused = ask(5.0 + LOOK, who="d")
    assert isinstance(refused, Refused)
    assert refused.overflow
    known = ask(5.0 + LOOK, who="a")
    assert isinstance(known, Refused)
    assert not known.overflow
    assert passes(ask(10.0 + LOOK, who="d"))  # the bucket of `a` is full again, and forgotten


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 50)), max_size=200))
def test_memory_is_bounded_and_nobody_gets_more(asked: list[tuple[float, int]]) -> None:
    """Whatever names are invented: few buckets, and all together no more than cap + 1 shares."""
    limit = Limit(spec(requests=1, interval=1_000, per="identity"), buckets=5)
    limits, now, passed = RateLimit([limit]), 0.0, 0
    head = RequestHead(b"GET", b"catalog", b"/", [])
    for gap, name in asked:
        now += gap
        passed += passes(limits.ask(head, str(name), now))
        assert limit.in_use <= 5 + 1
    assert passed <= (5 + 1) * (1 + now) + 1e-6


def test_workers_share() -> None:
    """Four workers together give what one would, as far as tokens can be divided."""
    workers = [asking(spec(requests=8, interval=1_000), parts=4) for _ in range(4)]
    assert sum(passes(ask(0.0)) for ask in workers for _ in range(10)) == 8
    assert sum(passes(ask(1.0)) for ask in workers for _ in range(10)) == 8
    assert told(workers[0](2.0))["RateLimit-Policy"] == '"api";q=8;w=1'


@pytest.mark.parametrize(
    ("more", "path", "reason"),
    [
        ({"name": "zwölf"}, "limits.name", "expected printable ASCII, got 'zwölf'"),
        ({"per": "header"}, "limits.header", "expected a name, got ''"),
        ({"header": "a"}, "limits.header", "expected none with per 'all', got 'a'"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(more: dict[str, str], path: str, reason: str) -> None:
    """The error says which field, and what was expected."""
    with pytest.raises(ContractError) as caught:
        Limit(spec(**more), "limits")
    assert (caught.value.path, caught.value.reason) == (path, reason)


def test_a_name_is_quoted() -> None:
    """RFC 8941 section 3.3.3: a string has its quotes and backslashes escaped."""
    ask = asking(spec(name='a"\\b', requests=1))
    assert told(ask(0.0))["RateLimit-Policy"] == r'"a\"\\b";q=1;w=1'


def test_another_spelling_of_a_host_is_no_other_bucket() -> None:
    """Case, the root's dot and the port that is meant anyway would each be a burst more."""
    limits = RateLimit([Limit(spec(per="header", header="Host", requests=1))])
    hosts = (b"catalog", b"CATALOG", b"catalog.", b"catalog:80")
    asked = [limits.ask(RequestHead(b"GET", host, b"/", []), None, 10.0) for host in hosts]
    assert [passes(one) for one in asked] == [True, False, False, False]

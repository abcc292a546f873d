"""When a second attempt begins: a percentile of what was measured, estimated cheaply."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.policies import HedgeSpec
from meshproxy.policies.hedging import LEAST_KNOWN, MEMORY, STRIDE, Latencies

RESOLUTION = 2**0.25


def known(*seconds: float) -> Latencies:
    latencies = Latencies()
    for one in seconds:
        latencies.record(one)
    return latencies


def test_little_known_nothing_said() -> None:
    """Of few requests a percentile is chance: then nothing is hedged."""
    assert Latencies().delay(HedgeSpec()) is None
    assert known(*[0.01] * (LEAST_KNOWN - 1)).percentile(95) is None
    assert known(*[0.01] * LEAST_KNOWN).percentile(95) is not None


def test_never_sooner_than_asked() -> None:
    """A service that answers in a millisecond is not worth two requests."""
    latencies = known(*[0.001] * LEAST_KNOWN)
    assert latencies.delay(HedgeSpec(min_delay=10)) == 0.01
    assert latencies.delay(HedgeSpec(min_delay=0)) == pytest.approx(0.001, rel=0.25)


@given(
    st.lists(st.floats(0.0002, 100), min_size=LEAST_KNOWN, max_size=400),
    st.sampled_from([50.0, 90.0, 95.0, 99.0]),
)
def test_it_is_the_percentile_but_for_the_width_of_a_bucket(
    seconds: list[float], percent: float
) -> None:
    """Never below it, and at most a fifth above."""
    true = sorted(seconds)[ceil(len(seconds) * percent / 100 - 1e-6) - 1]
    found = known(*seconds).percentile(percent)
    assert found is not None
    assert true * 0.999 <= found <= true * RESOLUTION * 1.001


@pytest.mark.parametrize("percent", [50.0, 75.0, 80.0, 90.0, 95.0, 99.0, 99.5])
def test_as_many_as_asked_for_are_slower(percent: float) -> None:
    """Not one less, where the percentile falls between two of them."""
    for count in range(200, 401, 200):
        seconds = [0.001 * 1.5**number for number in range(20)]
        slower = round(count * (100 - percent) / 100)
        latencies = known(*[seconds[0]] * (count - slower - 1), seconds[5], *[seconds[10]] * slower)
        assert latencies.percentile(percent) == pytest.approx(seconds[5], rel=RESOLUTION - 1)


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e9])
def test_what_is_out_of_range_counts_at_its_end(seconds: float) -> None:
    """Nothing is too fast or too slow to be counted."""
    assert known(*[seconds] * LEAST_KNOWN).percentile(50) is not None


def test_the_service_may_change_its_habits() -> None:
    """What was measured long ago weighs less and less."""
    latencies = known(*[0.01] * MEMORY)
    before = latencies.percentile(90)
    for _ in range(MEMORY):
        latencies.record(1.0)
    after = latencies.percentile(90)
    assert before is not None
    assert after is not None
    assert before < 0.02
    assert after > 0.9


def test_it_is_worked_out_only_now_and_then() -> None:
    """The same answer until there is something new to know."""
    latencies = known(*[0.01] * LEAST_KNOWN)
    first = latencies.percentile(95)
    for _ in range(STRIDE - 1):
        latencies.record(10.0)
    assert latencies.percentile(95) == first
    latencies.record(10.0)
    assert latencies.percentile(95) != first

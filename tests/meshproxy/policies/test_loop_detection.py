from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message import Field, field
from meshproxy.policies.loop_detection import HOPS, PASSES, VIA, LoopDetection


def test_each_place_writes_its_name_behind_the_others() -> None:
    """Inbound and outbound of one workload are two places."""
    a = LoopDetection("outbound", "default/storefront")
    b = LoopDetection("inbound", "default/catalog")
    first = a.mark([])
    assert first == field(VIA, a.name)
    second = b.mark([first])
    assert second == field(VIA, a.name + b", " + b.name)
    assert a.name != LoopDetection("inbound", "default/storefront").name
    assert a.name == LoopDetection("outbound", "default/storefront").name


def test_a_circle_is_found_after_a_few_turns() -> None:
    """Of one proxy, and of several."""
    for size in (1, 2, 5):
        circle = [LoopDetection("inbound", f"default/a{number}") for number in range(size)]
        mark: Field | None = None
        turns = 0
        while True:
            for place in circle:
                mark = place.mark([] if mark is None else [mark])
                if mark is None:
                    break
            if mark is None:
                break
            turns += 1
        assert turns == PASSES


def test_a_way_has_an_end() -> None:
    """Also one that never passes the same place twice."""
    places = [LoopDetection("inbound", f"default/a{number}") for number in range(HOPS + 1)]
    mark: Field | None = None
    for place in places[:HOPS]:
        mark = place.mark([] if mark is None else [mark])
        assert mark is not None
    assert mark is not None
    assert places[HOPS].mark([mark]) is None


@given(st.lists(st.binary(max_size=64), max_size=5))
def test_whatever_a_stranger_says_is_bounded(values: list[bytes]) -> None:
    """It is passed on, or refused."""
    place = LoopDetection("inbound", "default/a")
    mark = place.mark([field(VIA, value) for value in values])
    assert mark is None or mark[1].endswith(place.name)

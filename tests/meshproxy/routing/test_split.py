from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.routing.split import Backend, Split


def split(*weights: int) -> Split[int]:
    return Split([(Backend(index), weight) for index, weight in enumerate(weights)])


def chosen(of: Split[int], point: float) -> int | None:
    backend = of.choose(point)
    return None if backend is None else backend.cluster


def test_a_single_backend_takes_every_request() -> None:
    """Also when others are listed with no weight."""
    assert {chosen(split(5), point) for point in (0.0, 0.5, 0.999999)} == {0}
    assert {chosen(split(0, 7, 0), point) for point in (0.0, 0.5, 0.999999)} == {1}


def test_without_any_weight_there_is_no_choice() -> None:
    """The Gateway API has such a route answer 500: there is nowhere to go."""
    assert split().choose(0.5) is None
    assert split(0).choose(0.5) is None
    assert split(0, 0).choose(0.5) is None


def test_each_backend_owns_its_stretch_of_the_line() -> None:
    """Weights 9 and 1: the first owns [0, 0.9), the second the rest."""
    of = split(9, 1)
    assert [chosen(of, point) for point in (0.0, 0.899, 0.9, 0.999)] == [0, 0, 1, 1]


def test_an_unresolved_backend_keeps_its_share() -> None:
    """Its requests must fail rather than move to the others."""
    of = Split([(Backend(None), 1), (Backend("catalog"), 1)])
    backend = of.choose(0.25)
    assert backend is not None
    assert backend.cluster is None
    backend = of.choose(0.75)
    assert backend is not None
    assert backend.cluster == "catalog"


@settings(deadline=None)
@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=8))
def test_shares_equal_weights(weights: list[int]) -> None:
    """Over evenly spread points each backend gets its weight's share, and weight 0 gets nothing."""
    of = split(*weights)
    total, points = sum(weights), 1000
    counts = [0] * len(weights)
    for step in range(points):
        backend = of.choose(step / points)
        if backend is None:
            assert total == 0
        else:
            assert backend.cluster is not None
            counts[backend.cluster] += 1
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - points * weight / (total or 1)) <= 1
        assert weight > 0 or count == 0


@settings(deadline=None)
@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=50))
def test_the_largest_point_below_one_falls_on_the_last_backend(weights: list[int]) -> None:
    """Rounding never leads past the end of the line."""
    assert chosen(split(*weights), 1 - 2**-53) == len(weights) - 1

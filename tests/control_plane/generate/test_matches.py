from control_plane.generate.matches import ANYTHING, first_of_each, http_match, of_policy
from control_plane.resources.gateway_api import HTTPHeaderMatch, HTTPRouteMatch
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec


def test_of_equal_names_the_first_counts() -> None:
    """Header names regardless of case, names of query parameters as they are."""
    matches = [HTTPHeaderMatch(name=name, value=name) for name in ("a", "A", "b")]
    assert [one.value for one in first_of_each(matches, fold=True)] == ["a", "b"]
    assert [one.value for one in first_of_each(matches, fold=False)] == ["a", "A", "b"]


def test_a_policy_without_conditions_asks_for_none() -> None:
    """A route always asks for a path, if only for ``/``, by which it is found."""
    assert of_policy(ANYTHING) == MatchSpec()
    assert http_match(ANYTHING) == MatchSpec(path=PathMatchSpec(type="prefix", value="/"))
    asked = HTTPRouteMatch(method="GET", headers=(HTTPHeaderMatch(name="a", value="b"),))
    assert of_policy(asked) == MatchSpec(
        path=PathMatchSpec(type="prefix", value="/"),
        method="GET",
        headers=(ValueMatchSpec(name="a", value="b"),),
    )

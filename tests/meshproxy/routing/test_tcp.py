"""Which rule takes a connection, by the name in its ClientHello."""

import pytest

from meshproxy.contract.resources import TcpBackendSpec, TcpRouteSpec, TcpRuleSpec
from meshproxy.contract.wire import ContractError
from meshproxy.routing.tcp import TcpRoute, compile_tcp_route

CLUSTERS = {"a": "A", "b": "B"}


def rule(name: str, *names: str, cluster: str | None = "a", weight: int = 1) -> TcpRuleSpec:
    backend = TcpBackendSpec(cluster=cluster, weight=weight)
    return TcpRuleSpec(name=name, server_names=names, backends=(backend,))


def route(*rules: TcpRuleSpec) -> TcpRoute[str]:
    return compile_tcp_route(TcpRouteSpec(name="default/broker:5672", rules=rules), CLUSTERS)


def found(route: TcpRoute[str], name: str | None) -> str | None:
    rule = route.find(name)
    return None if rule is None else rule.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("db.example.com", "exact"),
        ("a.db.example.com", "longer"),
        ("x.a.db.example.com", "longer"),
        ("www.example.com", "shorter"),
        ("example.com", "any"),
        ("notexample.com", "any"),
        ("", "any"),
        (None, "any"),
    ],
)
def test_the_most_specific_name_decides(name: str | None, expected: str) -> None:
    """Exact, then the longest wildcard, then no name at all, wherever the rules stand."""
    rules = route(
        rule("any"),
        rule("shorter", "*.example.com"),
        rule("longer", "*.db.example.com"),
        rule("exact", "db.example.com"),
    )
    assert rules.by_name
    assert found(rules, name) == expected


def test_among_equals_the_first_wins() -> None:
    """Two rules for the same name, and two for every name."""
    same = route(rule("one", "a.b"), rule("two", "a.b", "*.c"), rule("three", "*.c"))
    assert (found(same, "a.b"), found(same, "x.c"), found(same, None)) == ("one", "two", None)
    assert found(route(rule("one"), rule("two")), None) == "one"


def test_without_names_nothing_has_to_be_seen() -> None:
    """So a connection may begin before its first byte."""
    assert not route(rule("any")).by_name
    assert repr(route()) == "<TcpRoute default/broker:5672>"
    assert found(route(), None) is None


def test_backends_share_by_weight_and_may_be_unresolved() -> None:
    """A rule without backends has no split; a backend without a cluster keeps its share."""
    spec = TcpRuleSpec(
        name="r",
        backends=(
            TcpBackendSpec(cluster="a", weight=3),
            TcpBackendSpec(cluster=None, weight=1),
        ),
    )
    chosen = route(spec).find(None)
    assert chosen is not None
    assert chosen.split is not None
    shares = [chosen.split.choose(point) for point in (0.0, 0.74, 0.76)]
    assert [share.cluster if share else "?" for share in shares] == ["A", "A", None]
    empty = route(TcpRuleSpec(name="r")).find(None)
    assert empty is not None
    assert empty.split is None
    assert repr(empty) == "<TcpRule r>"


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (rule("r", cluster="c"), r"rules\[0\].backends\[0\].cluster: there is no cluster"),
        (rule("r", "ok", "A.b"), r"rules\[0\].server_names\[1\]: expected a name in lower"),
        (rule("r", "a.*"), r"rules\[0\].server_names\[0\]"),
        (rule("r", "*."), r"rules\[0\].server_names\[0\]"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(spec: TcpRuleSpec, path: str) -> None:
    """The path names rule and field."""
    with pytest.raises(ContractError, match=path):
        route(spec)

"""What a series of checks says, and what one answer says."""

import pytest

from meshproxy.contract.policies import HealthCheckSpec
from meshproxy.policies.health import Health, grpc_question, interval, is_good, is_serving


def verdicts(answers: str, **spec: int) -> str:
    """Return after each answer (`+`, `-`) whether it is healthy (`H`) or not (`u`)."""
    health = Health(HealthCheckSpec(**spec))  # type: ignore[arg-type]
    told = ""
    for answer in answers:
        before = health.healthy
        changed = health.learn(good=answer == "+")
        assert changed == (health.healthy != before)
        told += "H" if health.healthy else "u"
    return told


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("--+--+--+", "HHHHHHHHH"),
        ("---", "HHu"),
        ("---+-++", "HHuuuuH"),
        ("+++++---", "HHHHHHHu"),
    ],
)
def test_so_many_in_a_row_change_the_verdict(answers: str, expected: str) -> None:
    """Three bad ones take it out, two good ones bring it back; others change nothing."""
    assert verdicts(answers) == expected
    assert verdicts("-+", healthy=1, unhealthy=1) == "uH"


def test_a_verdict_can_be_inherited() -> None:
    """The settings of the check have changed, what was found has not."""
    health = Health(HealthCheckSpec(healthy=1), healthy=False)
    assert repr(health) == "<Health unhealthy, 0 against it>"
    assert health.learn(good=True)


def test_good_statuses() -> None:
    """All of 2xx, or exactly those that are listed."""
    plain, listed = HealthCheckSpec(), HealthCheckSpec(statuses=(204, 404))
    assert [is_good(plain, status) for status in (199, 200, 299, 300)] == [False, True, True, False]
    assert [is_good(listed, status) for status in (200, 204, 404)] == [False, True, True]


def test_intervals_differ_by_a_tenth() -> None:
    """Proxies that began together do not ask together for ever."""
    spec = HealthCheckSpec(interval=10_000)
    assert [round(interval(spec, random), 6) for random in (0.0, 0.5, 1.0)] == [9.0, 10.0, 11.0]


def test_grpc_messages() -> None:
    """As protobuf would write and read them."""
    assert grpc_question("") == b"\0\0\0\0\0"
    assert grpc_question("shop.Books") == b"\0\0\0\0\x0c\x0a\x0ashop.Books"
    assert grpc_question("x" * 200)[5:8] == b"\x0a\xc8\x01"
    assert is_serving(b"\0\0\0\0\x02\x08\x01")
    for answer in (b"", b"\0\0\0\0\0", b"\0\0\0\0\x02\x08\x02", b"\0\0\0\0\x02\x08\x03"):
        assert not is_serving(answer)

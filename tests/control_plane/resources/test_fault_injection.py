import pytest

from tests.helpers.mesh import messages, policy


def found(rule: str) -> list[str]:
    prefix = "f.yaml:5: FaultInjection/default/p: spec.rules[0]"
    text = policy("p", f"rules: [{rule}]", kind="FaultInjection")
    return [one.removeprefix(prefix) for one in messages(text)]


@pytest.mark.parametrize(
    "rule",
    [
        "{delay: {fixedDelay: 1s}}",
        "{delay: {fixedDelay: 1s, percent: 0.1}, abort: {httpStatus: 503, percent: 100}}",
        "{abort: {grpcStatus: UNAVAILABLE}}",
        "{delay: {fixedDelay: 1s}, abort: {httpStatus: 503, percent: 0}}",
    ],
)
def test_accepted(rule: str) -> None:
    """A delay, an answer, or first the one and then the other."""
    assert found(rule) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{}", ": has neither delay nor abort, expected one of them, or both"),
        (
            "{delay: {fixedDelay: 1s, percent: 0}, abort: {httpStatus: 500, percent: 0}}",
            ": does nothing with a percent of 0, expected it above 0, or no such rule",
        ),
        ("{delay: {}}", ".delay.fixedDelay: is missing, expected a duration"),
        (
            "{delay: {fixedDelay: 0s}}",
            '.delay.fixedDelay: "0s" is too short, expected at least 1ms',
        ),
        (
            "{delay: {fixedDelay: 1s, percent: 101}}",
            ".delay.percent: 101 is out of range, expected a number 0 to 100",
        ),
        (
            "{abort: {}}",
            ".abort: has neither httpStatus nor grpcStatus, expected one of them, or both",
        ),
        (
            "{abort: {httpStatus: 100}}",
            ".abort.httpStatus: 100 is out of range, expected an integer 200",
        ),
        (
            "{abort: {grpcStatus: 14}}",
            '.abort.grpcStatus: "14" is an integer, expected one of ABORTED',
        ),
        (
            "{abort: {grpcStatus: OK}}",
            '.abort.grpcStatus: "OK" is not known, expected one of ABORTED',
        ),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """Each is one finding, with its field."""
    (only,) = found(rule)
    assert only.startswith(expected)

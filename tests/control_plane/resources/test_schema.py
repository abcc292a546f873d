from typing import Annotated, Literal

import msgspec
import pytest

from control_plane.resources import model
from control_plane.resources.document import read
from control_plane.resources.fields import Duration, Period
from control_plane.resources.finding import dotted
from control_plane.resources.schema import walk
from tests.helpers.mesh import messages


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    choice: Literal["one", "two"] = "one"
    code: Literal[301, 302] = 301
    items: tuple[Inner, ...] = ()
    table: dict[str, str] = {}
    maybe: int | str | None = None
    flag: bool = False
    wait: Duration = "1s"
    pause: Period | None = None
    share: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    inside: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    group: Literal[""] = ""


def found(text: str) -> list[str]:
    (node,) = read(text)
    reports: list[str] = []
    data = walk(
        node, Outer, lambda path, line, said: reports.append(f"{line} {dotted(path)}: {said}")
    )
    if not reports:
        msgspec.convert(data, Outer)  # what the walker lets through fits
    return reports


@pytest.mark.parametrize(
    "text",
    [
        "text: a",
        "{text: a, choice: two, code: 302, items: [{number: 9}, {}], table: {a: b}, maybe: 3}",
        "{text: a, choice: null, items: null, table: ~, maybe: null, flag: on}",
        "{text: a, maybe: b}",
        "{text: a, wait: 0s, pause: 1h30m, share: 100, inside: 0.1, group: ''}",
    ],
)
def test_what_fits(text: str) -> None:
    """Null is the same as leaving a field out."""
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("texd: a\ntext: b", '1 texd: unknown field, did you mean "text"?'),
        ("text: b\nTable: {}", '2 Table: unknown field, did you mean "table"?'),
        ("choice: one", "1 text: is missing, expected a string"),
        (
            "{text: a, wait: 1x}",
            '1 wait: "1x" is not a duration, expected a duration such as 1h30m',
        ),
        (
            "{text: a, wait: 5}",
            (
                '1 wait: "5" is an integer, expected a duration such as 1h30m, 10s or 250ms: '
                "say the unit, 5s or 5ms"
            ),
        ),
        (
            "{text: a, wait: []}",
            "1 wait: is a list, expected a duration such as 1h30m, 10s or 250ms",
        ),
        ("{text: a, pause: 0s}", '1 pause: "0s" is too short, expected at least 1ms'),
        ("{text: a, share: 100.5}", "1 share: 100.5 is out of range, expected a number 0 to 100"),
        ("{text: a, share: x}", '1 share: "x" is a string, expected a number 0 to 100'),
        (
            "{text: a, inside: 0}",
            "1 inside: 0 is out of range, expected a number above 0 and below 1",
        ),
        ("{text: a, group: x}", '1 group: "x" is not known, expected ""'),
        ("text: null", "1 text: is null, expected a string"),
        ("text: on", '1 text: "on" is a boolean, expected a string: write it in quotes, "on"'),
        ("text: 1.0", '1 text: "1.0" is a number, expected a string: write it in quotes, "1.0"'),
        ("text: [a]", "1 text: is a list, expected a string"),
        ("text: a\nchoice: three", '2 choice: "three" is not known, expected one of one, two'),
        ("text: a\ncode: 303", "2 code: 303 is not known, expected one of 301, 302"),
        ("text: a\ncode: '301'", '2 code: "301" is a string, expected one of 301, 302'),
        ("text: a\nitems: {}", "2 items: is a mapping, expected a list"),
        ("text: a\nitems:\n- x", '3 items[0]: "x" is a string, expected a mapping with number'),
        (
            "text: a\nitems:\n- number: ten",
            '3 items[0].number: "ten" is a string, expected an integer 0 to 9',
        ),
        (
            "text: a\nitems:\n- number: 10",
            "3 items[0].number: 10 is out of range, expected an integer 0 to 9",
        ),
        (
            "text: a\nitems:\n- number: true",
            '3 items[0].number: "true" is a boolean, expected an integer 0 to 9',
        ),
        ("text: a\nitems:\n- number: 1.0", '3 items[0].number: "1.0" is a number, expected an'),
        ("text: a\ntable: [a]", "2 table: is a list, expected a mapping"),
        ("text: a\ntable:\n  a: 1", '3 table.a: "1" is an integer, expected a string: write it'),
        ("text: a\nmaybe: []", "2 maybe: is a list, expected an integer or a string"),
        ("text: a\nflag: 1", '2 flag: "1" is an integer, expected true or false'),
    ],
)
def test_what_does_not_fit(text: str, report: str) -> None:
    """Each mismatch says the line, the field, what it is and what was expected."""
    (only,) = found(text)
    assert only.startswith(report)


def test_all_mismatches_are_reported() -> None:
    """Not only the first."""
    assert len(found("choice: x\ncode: 1\nitems: [{number: a}, {numbers: 1}]\nflag: x")) == 6


def test_output_of_kubectl_is_accepted() -> None:
    """What a cluster adds to an object is read over; what it does not know is still refused."""
    text = """
    apiVersion: v1
    kind: Service
    metadata:
      name: a
      creationTimestamp: 2026-01-01T00:00:00Z
      managedFields: [{manager: kubectl}]
      uid: 1234-5
    spec:
      clusterIP: 10.0.0.1
      clusterIPs: [10.0.0.1]
      internalTrafficPolicy: Cluster
      ipFamilies: [IPv4]
      ipFamilyPolicy: SingleStack
      sessionAffinity: None
      ports: [{port: 80, protocol: TCP, nodePort: 30000}]
    status: {loadBalancer: {}}
    """
    assert messages(text) == []
    assert model.IGNORED

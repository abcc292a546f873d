"""What goes along with a request, and which calls are made for which request."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message import Fields, field
from meshproxy.policies.propagation import (
    CRITICALITIES,
    KEPT,
    MOST_KEPT,
    NOTHING,
    Context,
    Propagation,
    attempt_field,
    criticality_field,
    deadline_field,
    put,
    read,
    spent_field,
    trace_of,
)

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
LINE = b"00-" + TRACE + b"-00f067aa0ba902b7-01"
OTHER_SPAN = b"00-" + TRACE + b"-b7ad6b7169203331-01"


def said(*pairs: tuple[bytes, bytes]) -> Fields:
    return [field(name, value) for name, value in pairs]


# What is said -------------------------------------------------------------------------------------


def test_what_a_proxy_says_another_reads() -> None:
    """Deadline, attempt, criticality and who spent the time survive the wire."""
    fields = [
        deadline_field(1.5),
        attempt_field(3),
        criticality_field("sheddable"),
        spent_field("default/cart", 0.95),
    ]
    context = read(fields, 100.0)
    assert (context.deadline, context.attempt) == (101.5, 3)
    assert context.criticality == "sheddable"
    assert (context.spender, context.spent) == ("default/cart", 0.95)


@pytest.mark.parametrize(
    "fields",
    [
        said((b"x-mesh-deadline-ms", b"-1")),
        said((b"x-mesh-deadline-ms", b"1e3")),
        said((b"x-mesh-deadline-ms", b"")),
        said((b"x-mesh-deadline-ms", b"9" * 11)),
        said((b"x-mesh-attempt", b"two")),
        said((b"x-mesh-attempt", b"0")),
        said((b"x-mesh-attempt", b"1000")),
        said((b"x-mesh-criticality", b"utmost")),
        said((b"x-mesh-spent", b"default/cart")),
        said((b"x-mesh-spent", b"a b=1")),
    ],
)
def test_what_is_not_valid_was_not_said(fields: Fields) -> None:
    """A value of the wrong shape changes nothing; it does not refuse the request either."""
    context = read(fields, 100.0)
    assert (context.deadline, context.attempt, context.criticality) == (inf, 1, None)
    assert context.spender == ""


def test_of_what_is_said_twice_the_stricter_holds() -> None:
    """Two deadlines allow the shorter one, two attempts are the later one."""
    twice = said(
        (b"x-mesh-deadline-ms", b"10"), (b"x-mesh-deadline-ms", b"2000"),
        (b"x-mesh-attempt", b"2"), (b"x-mesh-attempt", b"1"),
    )  # fmt: skip
    context = read(twice, 0.0)
    assert (context.deadline, context.attempt) == (0.01, 2)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_on_the_wire_a_deadline_only_shrinks(left: float, now: float) -> None:
    """Whole milliseconds never say more than there is, nor a whole millisecond less."""
    allowed = read([deadline_field(left)], now).deadline - now
    assert left - 0.0011 <= allowed <= left + 1e-6


def test_an_app_can_shorten_what_its_request_was_allowed_and_no_more() -> None:
    """Of a call's own words the deadline holds if it is shorter, the attempt never does."""
    whole: Context[str] = Context(110.0, 2, "critical")
    assert Context[str](105.0, 9, "sheddable").within(whole).deadline == 105.0
    longer: Context[str] = Context[str](200.0, 1).within(whole)
    assert (longer.deadline, longer.attempt, longer.criticality) == (110.0, 2, "critical")


def test_a_field_is_said_once_whatever_the_attempt() -> None:
    """The second attempt's word takes the place of the first's."""
    fields = said((b"accept", b"*/*"))
    put(fields, deadline_field(2.0))
    put(fields, deadline_field(1.0))
    assert fields == [field(b"accept", b"*/*"), deadline_field(1.0)]


# What belongs together ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        (said((b"traceparent", LINE)), (TRACE,)),
        (said((b"traceparent", LINE + b"-more")), (TRACE,)),
        (said((b"b3", TRACE + b"-e457b5a2e4d86bd1-1")), (TRACE,)),
        (said((b"x-b3-traceid", TRACE.upper())), (TRACE,)),
        (said((b"x-b3-traceid", b"a3ce929d0e0e4736")), (b"0" * 16 + b"a3ce929d0e0e4736",)),
        (said((b"x-request-id", b"1-2-3")), (b"request 1-2-3",)),
        (said((b"x-request-id", b"1"), (b"traceparent", LINE)), (b"request 1", TRACE)),
        (said((b"b3", TRACE), (b"traceparent", LINE)), (TRACE,)),
        (said((b"traceparent", b"00-" + b"0" * 32 + LINE[35:])), ()),
        (said((b"traceparent", LINE[:40])), ()),
        (said((b"traceparent", b"x" * 60)), ()),
        (said((b"b3", b"0")), ()),
        (said((b"x-request-id", b"")), ()),
        (said((b"x-request-id", b"x" * 129)), ()),
        (said((b"accept", LINE)), ()),
    ],
)
def test_ids_of_a_trace(fields: Fields, ids: tuple[bytes, ...]) -> None:
    """W3C and B3 name the same trace alike; what is no id, or the id of nothing, is none."""
    assert trace_of(fields)[0] == ids


def entered(table: Propagation[str], line: bytes = LINE, **known: object) -> Context[str]:
    context: Context[str] = Context()
    for name, value in known.items():
        setattr(context, name, value)
    table.enter(context, *trace_of(said((b"traceparent", line))))
    return context


def test_a_call_finds_the_request_it_is_made_for() -> None:
    """By trace id: a tracing library in the app has made a span of its own."""
    table: Propagation[str] = Propagation()
    context = entered(table, deadline=5.0)
    assert table.find(*trace_of(said((b"traceparent", OTHER_SPAN)))) is context
    assert table.find((), b"") is None
    assert table.find((b"f" * 32,), b"") is None
    assert (table.found, table.ambiguous, table.unknown) == (1, 0, 2)


def test_an_ended_request_is_found_no_more() -> None:
    """An entry lives as long as its exchange, whichever ends first."""
    table: Propagation[str] = Propagation()
    first, second = entered(table), entered(table)
    table.leave(first)
    assert table.find((TRACE,), b"") is second
    table.leave(second)
    assert table.find((TRACE,), b"") is None
    assert not table.by_id


def test_what_was_given_up_is_recognized_for_a_while() -> None:
    """A minute, and not while a request of the same trace is under way; the oldest make room."""
    table: Propagation[str] = Propagation()
    context = entered(table)
    table.give_up(context, 100.0, gone=True)
    assert table.find((TRACE,), b"") is context
    another = entered(table, OTHER_SPAN)
    assert table.find((TRACE,), LINE) is another
    table.leave(another)
    table.give_up(entered(table, LINE.replace(b"4bf9", b"5bf9")), 100.0 + KEPT + 1, gone=False)
    assert table.find((TRACE,), b"") is None
    for _ in range(2 * MOST_KEPT):
        table.give_up(entered(table), 200.0, gone=True)
    assert sum(map(len, table.by_id.values())) == MOST_KEPT


def test_of_several_the_one_with_the_same_parent_is_meant() -> None:
    """An app that does nothing but pass `traceparent` on tells two requests of a trace apart."""
    table: Propagation[str] = Propagation()
    entered(table, LINE)
    second = entered(table, OTHER_SPAN)
    assert table.find((TRACE,), OTHER_SPAN) is second


def test_what_holds_for_all_is_inherited_when_nobody_can_tell() -> None:
    """The latest deadline, the lowest attempt and the highest criticality: true in any case."""
    table: Propagation[str] = Propagation()
    entered(table, LINE, deadline=5.0, attempt=3, criticality="sheddable")
    entered(table, LINE, deadline=7.0, attempt=2, criticality="critical")
    common = table.find((TRACE,), LINE)
    assert common is not None
    assert (common.deadline, common.attempt, common.criticality) == (7.0, 2, "critical")
    assert table.ambiguous == 1


def test_a_crowd_tells_nothing() -> None:
    """Looking through any number of requests with one id would be work that a stranger orders."""
    table: Propagation[str] = Propagation()
    for _ in range(65):
        entered(table, LINE, deadline=5.0)
    assert table.find((TRACE,), LINE) is None


KNOWN = st.tuples(
    st.one_of(st.just(inf), st.floats(0, 1e6)),
    st.integers(1, 9),
    st.one_of(st.none(), st.sampled_from(list(CRITICALITIES.values()))),
)


@given(st.lists(KNOWN, min_size=2, max_size=16))
def test_nothing_that_is_common_is_stricter_than_any(
    known: list[tuple[float, int, str | None]],
) -> None:
    """Whichever of them a call is made for, it is allowed at least what that one was."""
    contexts = [Context[str](*one) for one in known]
    table: Propagation[str] = Propagation()
    for context in contexts:
        table.enter(context, (TRACE,), b"")
    common = table.find((TRACE,), b"")
    assert common is not None
    ranks = [*CRITICALITIES.values()]
    for one in contexts:
        assert common.deadline >= one.deadline
        assert common.attempt <= one.attempt
        assert ranks.index(common.criticality or "default") <= ranks.index(
            one.criticality or "default"
        )


def test_nothing_is_never_changed() -> None:
    """Who needs a context of its own gets another one than that of all who brought nothing."""
    assert NOTHING.own() is not NOTHING
    context: Context[str] = Context()
    assert context.own() is context


def test_what_is_made_for_a_copy_is_no_more_real_than_that() -> None:
    """Of a call that says more itself, too; but where it may be for a real request, it is."""
    copy, real = Context[Any](), Context[Any]()
    copy.mirrored = True
    assert read([field(b"x-mesh-criticality", b"default")], 0.0).within(copy).mirrored
    table = Propagation[Any]()
    table.enter(copy, (TRACE,), b"")
    found = table.find((TRACE,), b"")
    assert found is not None
    assert found.mirrored
    table.enter(real, (TRACE,), b"")
    found = table.find((TRACE,), b"")
    assert found is not None
    assert not found.mirrored

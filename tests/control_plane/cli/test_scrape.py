"""Fetch the metrics of many sidecars at once."""

from control_plane.cli.scrape import scrape
from control_plane.cli.traffic import REFUSALS, count
from tests.control_plane.cli.conftest import Api


def test_who_answers_is_counted_and_who_does_not_is_left_out(api: Api) -> None:
    """A sidecar that restarts at this moment must not spoil the table."""
    api.answers["/metrics"] = (
        200,
        '# TYPE mesh_refusals counter\nmesh_refusals_total{code="x"} 3\n',
    )

    found = scrape([api.address, "127.0.0.1:1", api.address])

    assert list(found) == [api.address]
    assert count(REFUSALS, found[api.address]) == 3


def test_what_is_no_answer_is_left_out_too(api: Api) -> None:
    """An error page has no counters."""
    api.answers["/metrics"] = (503, "later")

    assert scrape([api.address]) == {}

"""How the processes of a local mesh are."""

from pathlib import Path

import msgspec
import pytest

from control_plane.cli.context import Context
from control_plane.cli.local.backoff import WELL_AFTER
from control_plane.cli.processes import FILE, LISTENS_AFTER, Life, Process, Report, of


def app(life: Life, *missing: str) -> Process:
    return Process(
        name="a/app", workload="default/a", role="app", life=life, missing=missing, log="a.log"
    )


@pytest.mark.parametrize(
    ("life", "missing", "now", "word", "problem"),
    [
        (Life(state="starting", since=0), (), 1, "starting", None),
        (Life(state="running", since=0), (), 1, "running", None),
        (Life(state="running", since=0), ("$PORT (9)",), LISTENS_AFTER - 1, "starting", None),
        (
            Life(state="running", since=0),
            ("$PORT (9)",),
            LISTENS_AFTER,
            "not listening",
            "a/app does not listen on its $PORT (9), 5s after its start",
        ),
        (
            Life(state="restarting", since=0, ending="ended with exit code 1", failures=1),
            (),
            1,
            "restarting",
            "a/app ended with exit code 1; its log: a.log",
        ),
        (Life(state="running", since=0, ending="was killed", failures=1), (), 1, "running", None),
        (
            Life(state="running", since=0, ending="was killed", failures=2),
            (),
            WELL_AFTER - 1,
            "restarting",
            "a/app was killed, 2 times in a row; its log: a.log",
        ),
        (
            Life(state="running", since=0, ending="was killed", failures=2),
            (),
            WELL_AFTER,
            "running",
            None,
        ),
    ],
)
def test_a_process_is_well_or_says_what_is_wrong(
    life: Life, missing: tuple[str, ...], now: float, word: str, problem: str | None
) -> None:
    """A crash loop is one also in the moments in which it runs; a start takes a while."""
    assert app(life, *missing).word(now) == word
    assert app(life, *missing).problem(now) == problem


def test_the_report_is_found_through_the_context(tmp_path: Path) -> None:
    """A mesh that is not local, or has only just started, has none."""
    assert of(Context(api="http://x")) == Report()
    context = Context(api="http://x", run_dir=str(tmp_path))
    assert of(context) == Report()
    report = Report(processes=(app(Life(state="running", since=1)),), warnings=("odd",))
    (tmp_path / FILE).write_bytes(msgspec.json.encode(report))
    assert of(context) == report

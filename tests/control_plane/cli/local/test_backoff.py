"""How long to wait before a process that ended is started again."""

from control_plane.cli.local.backoff import FIRST, LONGEST, WELL_AFTER, Backoff


def test_waits_double_up_to_a_limit() -> None:
    """1, 2, 4, 8, 16, 30, 30 seconds."""
    backoff = Backoff()

    assert [backoff.after(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, LONGEST, LONGEST]


def test_a_process_that_was_well_begins_anew() -> None:
    """After a long life the next end is a first one."""
    backoff = Backoff()
    backoff.after(0)
    backoff.after(0)

    assert backoff.after(WELL_AFTER) == FIRST

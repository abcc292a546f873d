"""What can go wrong for a user of meshctl."""

from control_plane.cli.errors import NO, USAGE, CommandError


def test_an_error_carries_its_exit_code() -> None:
    """Without one, the answer is no."""
    assert CommandError("gone").code == NO
    assert CommandError("what?", USAGE).code == USAGE

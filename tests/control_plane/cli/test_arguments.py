"""Pieces of command lines."""

import argparse
from pathlib import Path

import pytest

from control_plane.cli.arguments import duration, existing


@pytest.mark.parametrize(
    ("text", "seconds"), [("20s", 20), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("0s", 0)]
)
def test_durations_are_the_gateway_apis(text: str, seconds: float) -> None:
    """GEP-2257."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "", "s", "-1s", "1.5s", "1s ", "1d", "1m30"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration such as"):
        duration(text)


def test_paths_must_exist(tmp_path: Path) -> None:
    """A misspelt path is not an empty mesh."""
    assert existing(str(tmp_path)) == tmp_path
    with pytest.raises(argparse.ArgumentTypeError, match="no such file or folder"):
        existing(str(tmp_path / "nope"))

"""A whole mesh on this machine, from files; whole runs are in tests/integration."""

import io
from pathlib import Path

import pytest

from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.main import main
from control_plane.cli.up import wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR with any content but none forbids it."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_broken_files_are_answered_with_their_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As validate prints them; nothing is started, the run directory is free again."""
    (tmp_path / "bad.yaml").write_text("apiVersion: v1\nkind: Servise\nmetadata: {name: s}\n")
    run_dir = tmp_path / "run"

    assert main(["up", "-f", str(tmp_path / "bad.yaml"), "--run-dir", str(run_dir)]) == 1
    assert f"{tmp_path}/bad.yaml:2: " in capsys.readouterr().out
    RunDirectory(run_dir).release()


def test_a_second_mesh_in_a_run_directory_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the pid of the first."""
    directory = RunDirectory(tmp_path)

    assert main(["up", "-f", "configs/demo", "--run-dir", str(tmp_path)]) == 1
    assert "a mesh already runs in" in capsys.readouterr().err
    directory.release()

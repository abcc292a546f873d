"""The one directory that a local mesh writes to, and its lock."""

import os
import stat
from pathlib import Path

import pytest

from control_plane.cli.local.rundir import RunDirectory, RunDirectoryError, chosen


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_option_wins_over_the_environment() -> None:
    """Then comes .mesh in the current directory."""
    assert chosen("/a", {"MESH_RUN_DIR": "/b"}) == Path("/a")
    assert chosen(None, {"MESH_RUN_DIR": "/b"}) == Path("/b")
    assert chosen(None, {}) == Path.cwd() / ".mesh"


def test_what_is_secret_is_its_owners_alone(tmp_path: Path) -> None:
    """Directories of state are 0700, written files 0600, also where a wider one was before."""
    directory = RunDirectory(tmp_path / "run")
    token = directory.token("default/shop")
    token.parent.mkdir(parents=True)
    token.write_text("old")
    token.chmod(0o644)
    directory.write(token, b"new")
    state = directory.state("td", "default", "shop")

    assert mode(tmp_path / "run") == mode(state) == 0o700
    assert mode(token) == 0o600
    assert token.read_bytes() == b"new"
    directory.release()


def test_a_second_mesh_is_refused(tmp_path: Path) -> None:
    """The sentence names the pid of the first; once that is gone the directory is free again."""
    first = RunDirectory(tmp_path)

    with pytest.raises(RunDirectoryError, match=rf"pid {os.getpid()}\b"):
        RunDirectory(tmp_path)

    first.release()
    RunDirectory(tmp_path).release()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With what to do about it."""
    (tmp_path / "file").write_text("")

    with pytest.raises(RunDirectoryError, match="--run-dir"):
        RunDirectory(tmp_path / "file" / "run")


def test_a_directory_of_somebody_else_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mesh leaves it that was started with `sudo`."""
    taken = tmp_path / "run"
    taken.write_text("no folder: that nothing can be written holds for root, too")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(RunDirectoryError, match=rf"belongs to user {owner}\): .*; choose another"):
        RunDirectory(taken)


def test_release_takes_the_context_away(tmp_path: Path) -> None:
    """Other verbs must not find a mesh that has stopped."""
    directory = RunDirectory(tmp_path)
    directory.write(directory.context, b"{}")
    directory.release()

    assert not directory.context.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_state_belongs_to_who_uses_it(tmp_path: Path) -> None:
    """With what is in it: another user may have run the process the last time."""
    directory = RunDirectory(tmp_path / "run")
    state = directory.state("td", "default", "shop")
    (state / "key.pem").touch(0o600)
    for user, owner in ((1337, 1337), (None, 0)):
        assert directory.state("td", "default", "shop", user=user) == state
        assert (state.stat().st_uid, (state / "key.pem").stat().st_uid) == (owner, owner)
        assert mode(state) == 0o700
        assert state.parent.stat().st_uid == 0
    directory.release()

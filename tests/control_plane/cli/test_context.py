"""Which mesh a command speaks to."""

import errno
import os
from pathlib import Path

import pytest

from control_plane.cli.context import find
from control_plane.cli.errors import USAGE, CommandError


def context(path: Path, api: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"api": "{api}"}}')
    return path


def test_the_first_of_the_list_wins(tmp_path: Path) -> None:
    """Option, MESHCTL_CONTEXT, MESH_RUN_DIR, .mesh here or above, the user's own."""
    option = context(tmp_path / "option.json", "option")
    variable = context(tmp_path / "variable.json", "variable")
    run_dir = context(tmp_path / "run" / "context.json", "run-dir").parent
    work = tmp_path / "work"
    above = context(work / ".mesh" / "context.json", "above")
    home = tmp_path / "home"
    context(home / ".config" / "meshproxy" / "context.json", "home")
    environment = {"MESHCTL_CONTEXT": str(variable), "MESH_RUN_DIR": str(run_dir)}
    deep = work / "deep" / "er"

    assert find(str(option), environment, deep, home).api == "option"
    assert find(None, environment, deep, home).api == "variable"
    del environment["MESHCTL_CONTEXT"]
    assert find(None, environment, deep, home).api == "run-dir"
    assert find(None, {}, deep, home).api == "above"
    above.unlink()
    assert find(None, {}, deep, home).api == "home"


def test_a_context_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """They could have the operator's token sent to themselves."""
    path = context(tmp_path / "context.json", "http://127.0.0.1:1")
    path.chmod(0o620)

    with pytest.raises(CommandError, match=r"mode 0620: others could .* chmod 0600"):
        find(str(path), {}, tmp_path, tmp_path)


def test_https_needs_to_know_whom_to_believe(tmp_path: Path) -> None:
    """Roots and identity; without them anybody could be the control plane."""
    path = context(tmp_path / "context.json", "https://127.0.0.1:1")

    with pytest.raises(CommandError, match="roots is missing"):
        find(str(path), {}, tmp_path, tmp_path)


def test_a_context_of_somebody_else_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo meshctl up` leaves one that only root can read."""
    option = context(tmp_path / "context.json", "api")

    def refuse(_path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CommandError, match="Permission denied; a mesh that was started with sudo"):
        find(str(option), {}, tmp_path, tmp_path)


def test_no_mesh_is_said_with_what_to_do(tmp_path: Path) -> None:
    """A usage error that names the ways to have one."""
    with pytest.raises(CommandError, match="meshctl up -f PATH") as raised:
        find(None, {}, tmp_path, tmp_path)

    assert raised.value.code == USAGE


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file"), ("{", "is not a context file"), ('{"pid": 1}', "`api`")],
)
def test_a_file_that_was_named_must_be_a_context(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    """Nothing else is tried instead: the user meant that one."""
    path = tmp_path / "context.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(CommandError, match=expected):
        find(str(path), {}, tmp_path, tmp_path)

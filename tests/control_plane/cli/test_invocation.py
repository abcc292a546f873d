"""How this user starts `meshctl`."""

import sys
from pathlib import Path

import pytest

from control_plane.cli.invocation import program, typed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `meshctl` in a virtual environment that is not active, seen from the folder around it."""
    path = tmp_path / ".venv" / "bin" / "meshctl"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    return path


def test_a_path_is_as_short_as_it_can_be(installed: Path, tmp_path: Path) -> None:
    """Relative to where the user is, unless absolute is shorter."""
    assert program(Path(".venv/bin/meshctl"), tmp_path) == (".venv/bin/meshctl",)
    assert program(installed, tmp_path) == (".venv/bin/meshctl",)
    assert program(installed, installed.parent) == ("./meshctl",)
    deep = tmp_path.joinpath(*["deep"] * 40)
    assert program(installed, deep) == (str(installed),)


def test_on_the_path_its_name_is_enough(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But only if the name leads to the same program."""
    monkeypatch.setenv("PATH", str(installed.parent))
    assert program(installed, Path("/")) == ("meshctl",)

    other = installed.with_name("other") / "meshctl"
    other.parent.mkdir()
    other.touch(mode=0o755)
    assert program(other, other.parent) == ("./meshctl",)


def test_as_a_module(tmp_path: Path) -> None:
    """From a checkout, without an installation."""
    words = program(tmp_path / "control_plane" / "cli" / "main.py", tmp_path)
    assert (tmp_path / words[0]).resolve() == Path(sys.executable).resolve()
    assert words[1:] == ("-m", "control_plane.cli.main")


def test_the_context_is_named_where_it_would_not_be_found(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run directory of one's own choice has to be pointed to; `.mesh` is found."""
    monkeypatch.setattr(sys, "argv", [str(installed), "demo"])
    for variable in ("MESHCTL_CONTEXT", "MESH_RUN_DIR"):
        monkeypatch.delenv(variable, raising=False)
    usual = tmp_path / ".mesh" / "context.json"
    own = tmp_path / "my run" / "context.json"
    for path in (usual, own):
        path.parent.mkdir()
        path.touch()

    assert typed("status", usual) == ".venv/bin/meshctl status"
    assert typed("status", own) == f".venv/bin/meshctl status --context '{own}'"
    monkeypatch.setenv("MESH_RUN_DIR", str(own.parent))
    assert typed("status", own) == ".venv/bin/meshctl status"

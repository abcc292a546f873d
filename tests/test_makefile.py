"""The first minute of a newcomer: what `make` says where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder, with a space in its name, that holds what `make venv` needs."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def interpreter(folder: Path, script: str) -> str:
    """Write a program that stands for a Python interpreter; return its path."""
    program = folder / "some-python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # These tests are themselves run by `make test`, whose variables are not for this one.
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "ARGS"}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in inherited},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_alone_lists_the_commands(clone: Path) -> None:
    """Without a target nothing is installed: the commands are shown."""
    done = make(clone)
    assert done.returncode == 0
    assert "make demo" in done.stdout
    assert "make test" in done.stdout
    assert not (clone / ".venv").exists()


def test_no_python(clone: Path) -> None:
    """Without an interpreter, a sentence says which packages to install."""
    done = make(clone, "venv", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "There is no no-such-python on this machine" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_old_python(clone: Path) -> None:
    """Too old an interpreter is named with its version."""
    old = interpreter(clone, '[ "$1" = --version ] && echo Python 3.10.13 && exit; exit 1')
    done = make(clone, "venv", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.10.13" in done.stderr
    assert not (clone / ".venv").exists()


def test_python_without_venv(clone: Path) -> None:
    """Debian's python3 without python3-venv: the sentence names that package, nothing is left."""
    bare = interpreter(
        clone, f'case "$*" in *ensurepip*) exit 1;; *) exec "{sys.executable}" "$@";; esac'
    )
    done = make(clone, "venv", f"PYTHON={bare}")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv").exists()


def test_a_half_made_environment_is_made_again(clone: Path) -> None:
    """An interrupted `make` leaves no trap: the next one starts over."""
    wrong = clone / ".venv" / "bin" / "python"
    wrong.parent.mkdir(parents=True)
    wrong.symlink_to(sys.executable)
    # Installing the real pip takes ten seconds and is not what is tested.
    quick = interpreter(
        clone,
        f"""[ "$1 $2" = "-m venv" ] || exec "{sys.executable}" "$@"
"{sys.executable}" -m venv --without-pip "$3" || exit
for folder in "$3"/lib/python3.*/site-packages; do touch "$folder/pip.py"; done""",
    )
    done = make(clone, "venv", f"PYTHON={quick}")
    assert done.returncode == 0, done.stderr
    assert "Making .venv" in done.stdout
    assert (clone / ".venv" / "pyvenv.cfg").exists()
    again = make(clone, "venv")
    assert (again.returncode, again.stdout) == (0, "")

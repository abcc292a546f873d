"""Which meshproxy is measured."""

import os
from pathlib import Path

import pytest

from bench import tree


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Sources, and nothing compiled."""
    monkeypatch.delenv("MESHPROXY_INTERPRETED", raising=False)
    (tmp_path / "meshproxy").mkdir()
    (tmp_path / "meshproxy" / "flow.py").touch()
    return tmp_path, tmp_path / "build" / "compiled"


def test_sources_where_nothing_is_compiled(places: tuple[Path, Path]) -> None:
    """A fresh clone has no compiled tree, and is measured all the same."""
    assert tree.state(*places) == "interpreted"


def test_what_is_compiled(places: tuple[Path, Path]) -> None:
    """Whoever has compiled the sources wants that measured."""
    root, compiled = places
    compiled.mkdir(parents=True)
    (compiled / ".made").touch()
    assert tree.state(root, compiled) == "compiled"


def test_yesterdays_build(places: tuple[Path, Path]) -> None:
    """A source that is newer than what was made of it is the one that counts."""
    root, compiled = places
    compiled.mkdir(parents=True)
    (compiled / ".made").touch()
    later = (compiled / ".made").stat().st_mtime + 1
    os.utime(root / "meshproxy" / "flow.py", (later, later))
    assert tree.state(root, compiled) == "stale"


def test_sources_on_request(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--interpreted` measures the sources, whatever is there."""
    root, compiled = places
    compiled.mkdir(parents=True)
    (compiled / ".made").touch()
    monkeypatch.setenv("MESHPROXY_INTERPRETED", "1")
    assert tree.state(root, compiled) == "interpreted"

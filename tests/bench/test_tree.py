"""Which meshproxy is measured."""

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
    (compiled / ".made").write_text(tree.fingerprint(root))
    assert tree.state(root, compiled) == "compiled"


@pytest.mark.parametrize("other", ["source", "optimization"])
def test_what_was_made_of_something_else(places: tuple[Path, Path], other: str) -> None:
    """A source that has changed, whatever its time says; a build that is quick to make, not to run."""
    root, compiled = places
    compiled.mkdir(parents=True)
    (compiled / ".made").write_text(tree.fingerprint(root, "0" if other == "optimization" else "3"))
    if other == "source":
        (root / "meshproxy" / "flow.py").write_text("changed = True")
    assert tree.state(root, compiled) == "stale"


def test_sources_on_request(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--interpreted` measures the sources, whatever is there."""
    root, compiled = places
    compiled.mkdir(parents=True)
    (compiled / ".made").write_text(tree.fingerprint(root))
    monkeypatch.setenv("MESHPROXY_INTERPRETED", "1")
    assert tree.state(root, compiled) == "interpreted"

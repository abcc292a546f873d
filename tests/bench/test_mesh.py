"""The mesh whose sidecars are weighed: what it is told is valid, and as much as the static pairs are."""

from pathlib import Path

import pytest

from bench.cost import memory
from bench.mesh import running, written
from bench.site import HOSTS, PREFIXES, Site
from control_plane.cli.main import main


def test_what_is_written_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`meshctl validate` finds nothing to say against as many services and routes as others have."""
    (tmp_path / "mesh.yaml").write_text(written())
    assert main(["validate", "-f", str(tmp_path / "mesh.yaml")]) == 0, capsys.readouterr().out
    assert written().count("kind: Service\n") == HOSTS
    assert written().count("PathPrefix") == HOSTS * PREFIXES


@pytest.mark.integration
def test_two_sidecars_that_are_told_what_to_do(tmp_path: Path) -> None:
    """They obey the control plane, and are gone at the end of the block."""
    with Site(tmp_path) as site:
        with running(site) as sidecars:
            assert len(sidecars) == 2
            assert all(memory(pid).rss > 10 for pid in sidecars)
        assert not any(Path(f"/proc/{pid}").exists() for pid in sidecars)

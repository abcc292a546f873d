"""Every example does what it says: it parses, has no finding, and generates."""

from pathlib import Path

import pytest

from control_plane.generate.snapshot import generate
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from meshproxy.config import bootstrap
from meshproxy.config.static import read_snapshot
from meshproxy.contract.resources import TrustSpec

ROOT = Path(__file__).parent.parent / "configs"
STATIC = ROOT / "static"
# A file directly in configs/ is an example of its own; a folder is a mesh, but for the static one.
EXAMPLES = sorted(
    path
    for path in ROOT.iterdir()
    if path.suffix in (".yaml", ".yml") or (path.is_dir() and path != STATIC)
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_example(example: Path) -> None:
    """Parses, validates without findings, and generates for each workload."""
    paths = [example] if example.is_file() else sorted(example.rglob("*.y*ml"))
    files = {path: examine(path.read_text(), path) for path in paths}
    state = state_of(choose(files, {}), Placements())
    assert [str(finding) for finding in state.findings] == []
    assert state.locations
    trust = TrustSpec(trust_domain="mesh.local", roots=())
    for workload in state.workloads:
        assert generate(state, workload, trust).version


def test_static_example() -> None:
    """The proxy without a mesh: bootstrap and snapshot are what the program reads."""
    read = bootstrap.read(STATIC / "bootstrap.yaml")
    assert read.static is not None
    assert read_snapshot(read.static.snapshot).listeners

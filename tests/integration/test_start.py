"""The sidecar's program, from start to a refusal: what stands on the terminal."""

import subprocess
import sys
from pathlib import Path

import pytest

from meshproxy.interpreter import advice

pytestmark = pytest.mark.integration

BOOTSTRAP = """\
workload: default/laptop
identity: spiffe://mesh.local/ns/default/sa/laptop
state: state
admin: {port: 0}
static: {snapshot: snapshot.yaml}
"""


def test_a_start_that_fails_says_once_why_and_where(tmp_path: Path) -> None:
    """One line with the whole path, nothing about stopping; exit code 1."""
    (tmp_path / "bootstrap.yaml").write_text(BOOTSTRAP)
    done = subprocess.run(
        [sys.executable, "-m", "meshproxy", "run", "--allow-root", "--bootstrap", "bootstrap.yaml"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines.pop() == (
        f"meshproxy: {tmp_path}/snapshot.yaml: cannot be read: No such file or directory"
    )
    # An old Python is the only other thing to speak of.
    warning = advice(sys.version_info[:3])
    assert [line.partition("WARNING meshproxy: ")[2] for line in lines] == [warning] * bool(warning)

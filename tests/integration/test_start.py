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


def test_a_start_loads_nothing_that_most_sidecars_never_need() -> None:
    """Each of these is milliseconds of every start, and memory for as long as it runs."""
    started = (
        "import sys\n"
        "from meshproxy.__main__ import main\n"
        "try: main(['run', '--bootstrap', 'there-is-none.yaml', '--allow-root'])\n"
        "except SystemExit: pass\n"
        "import meshproxy.proxy, meshproxy.traffic\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", started],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "meshproxy.exchange" in loaded
    unneeded = {
        "aiohttp", "bz2", "cryptography", "gettext", "joserfc", "json", "lzma", "opentelemetry",
        "platform", "prometheus_client", "re2", "shutil", "tempfile", "typing_extensions", "websockets", "yaml",
    }  # fmt: skip
    assert loaded & unneeded == set()


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_is_as_wide_as_it_is_told(columns: str) -> None:
    """A narrow terminal gets more lines."""
    done = subprocess.run(
        [sys.executable, "-m", "meshproxy", "run", "--help"],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": columns},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    longest = max(map(len, done.stdout.splitlines()))
    assert int(columns) - 20 < longest <= int(columns) - 2

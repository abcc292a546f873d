"""The benchmark's own arithmetic, and that it runs at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cost import Memory
from bench.quick import Sample, as_text, rows, table

ROOT = Path(__file__).parent.parent.parent


def sample(*cpu_us: float, rps: float = 1000, failed: int = 0) -> Sample:
    return Sample(cpu_us=cpu_us, rps=rps, p50_ms=1, p99_ms=2, failed=failed)


def test_rows_are_medians_and_ratios_to_the_direct_path() -> None:
    """Of an odd number of rounds the middle one counts; failures are summed up."""
    found = rows(
        {
            ("direct", 100): [sample(rps=1000), sample(rps=3000), sample(rps=2000)],
            ("one sidecar", 100): [
                sample(50, rps=1000, failed=1),
                sample(40, rps=900),
                sample(90, rps=1100, failed=2),
            ],
            ("two, mTLS", 100): [sample(40, 60, rps=500)],
        }
    )
    assert [row.rps.median for row in found] == [2000, 1000, 500]
    assert [row.rps_of_direct for row in found] == [1, 0.5, 0.25]
    assert [row.cpu_of_one for row in found] == [0, 1, 2]
    assert [row.cpu_us_by_sidecar for row in found] == [[], [50], [40, 60]]
    assert found[1].cpu_us.text() == "50 [40-90]"
    assert found[1].failed == 3


def test_table_aligns_figures_to_the_right() -> None:
    """The first column is text, the others are figures."""
    assert table([["path", "n"], ["one", "100"]]) == "path    n\none   100"


def test_a_direct_call_has_no_sidecar_to_account_for() -> None:
    """CPU of the direct path is no zero, but nothing at all."""
    text = as_text(rows({("direct", 100): [sample()]}), {"one sidecar, A": Memory(30, 20)})
    assert text.splitlines()[1].split()[:6] == ["direct", "100", "B", "-", "-", "-"]
    assert "one sidecar, A" in text


@pytest.mark.integration
def test_the_benchmark_runs() -> None:
    """One short round over all paths: no request fails, each sidecar costs something."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.quick", "--rounds", "1", "--seconds", "1", "-o", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {row["path"] for row in result["paths"]} == {"direct", "one sidecar", "two, mTLS"}
    assert all(row["rps"]["median"] > 0 and row["failed"] == 0 for row in result["paths"])
    assert all(row["cpu_us"]["median"] > 0 for row in result["paths"] if row["path"] != "direct")
    assert len(result["memory"]) == 3

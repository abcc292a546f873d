"""What every test has in common: where it runs, and that nothing has to be fast."""

import os
import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# Many images forbid bytecode.  Here hundreds of processes are started from the same sources: if
# each compiled them anew, that would be half of all the work.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test asserts a duration, and an example takes as long as a busy machine makes it take.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


# Files that take longest on two idle cores; a file that is not named is no mistake, but may be what
# everybody waits for in the end.
LONGEST = (
    "test_hot_restart", "test_live_mesh", "test_rotation", "test_demo", "test_netns", "test_fault_matrix",
    "test_upgrade", "test_http1", "test_peer_authentication", "test_retries", "test_tcp",
    "test_traffic_shaping", "test_breaking", "test_revocation", "test_rabbitmq", "test_http2",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Let files with real processes come first, the longest before all others.

    `pytest --dist loadfile` hands out files in this order, each to one worker, since its tests share
    what takes long to start: a mesh, a server that is not ours.  They mostly wait; what only
    computes, in many small files, is left to fill the gaps and the end.
    """
    processes = {item.path for item in items if item.get_closest_marker("integration")}

    def turn(item: pytest.Item) -> int:
        if item.path not in processes:
            return len(LONGEST) + 1
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show, with a test that failed, what its processes have logged last."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(folder, Path):
        for log in sorted(path for path in folder.rglob("log") if path.is_file()):
            last = log.read_text(errors="replace").splitlines()[-30:]
            report.sections.append((f"last lines of {log.relative_to(folder)}", "\n".join(last)))
    return report

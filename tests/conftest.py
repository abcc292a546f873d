"""What every test has in common: where it runs, and that nothing has to be fast."""

import os
import sys

import hypothesis
import pytest

# Many images forbid bytecode.  Here hundreds of processes are started from the same sources: if
# each compiled them anew, that would be half of all the work.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test asserts a duration, and an example takes as long as a busy machine makes it take.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


# First, because xdist's own hook looks for the marker.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Keep the tests with real processes of one file together on a worker of `pytest --dist loadgroup`.

    They share what takes long to start: a mesh, a server that is not ours.  xdist begins with the
    groups; what needs no processes fills the gaps, and the end.
    """
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

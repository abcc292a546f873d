"""What every test has in common: tests that start real processes take turns."""

import hypothesis
import pytest

# No test asserts a duration, and an example takes as long as a busy machine makes it take.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


# First, because xdist's own hook looks for the marker.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Keep tests with real processes together on a worker of `pytest -n 2 --dist loadgroup`.

    They measure what a user sees (a change within a second, no failed request); on a small machine
    more than two meshes at once would measure each other.  Those with peers that are not ours are a
    group of their own, so that each of these starts once.
    """
    for item in items:
        if item.get_closest_marker("integration"):
            group = "peers" if "interop" in item.path.parts else "processes"
            item.add_marker(pytest.mark.xdist_group(group))

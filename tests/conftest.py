"""What every test has in common: tests that start real processes take turns."""

import hypothesis
import pytest

# No test asserts a duration, and an example takes as long as a busy machine makes it take.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Keep integration tests on one worker of `pytest -n 2 --dist loadgroup`.

    They measure what a user sees (a change within a second, no failed request); two meshes at once
    on a small machine would measure each other.
    """
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(pytest.mark.xdist_group("processes"))

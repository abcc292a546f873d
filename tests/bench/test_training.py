"""The traffic that the compiler learns from: all of it, for a moment."""

import pytest
import uvloop

from bench import training


def test_in_memory() -> None:
    """Requests of each protocol, with and without policies, are answered as they should be."""
    uvloop.run(training.in_memory(requests=32))


@pytest.mark.integration
def test_with_processes() -> None:
    """Everything that is to be fast passes through sidecars that run, without programs of others."""
    training.with_processes(seconds=0.5)

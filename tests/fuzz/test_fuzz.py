"""
Fuzzing: whatever arrives is understood or refused, never a crash, and never more than it was.

A bounded run is part of all tests; `make fuzz` runs for as long as it is told.  What it finds becomes
a vector, or a test of the part that it was found in.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import mutation
from tests.fuzz.targets import TARGETS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_target(name: str, data: st.DataObject) -> None:
    """What the target says must hold, of bytes that are nearly right."""
    target = TARGETS[name]
    target.check(data.draw(mutation.mutated(target.seeds)))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """It holds of what the others are made of."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].check(seed)

"""What holds of the compiled hot path alone (deploy/compiled.py); of the sources there is nothing to ask."""

import inspect
import sys

import pytest

from meshproxy import proxy  # noqa: F401  # all there is
from meshproxy.policies.propagation import Context
from tests.helpers.compiled import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")


def test_nobody_refers_weakly_to_what_is_compiled() -> None:
    """On Python 3.11 such a reference would crash the interpreter, some time after its object has gone."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("meshproxy.") and str(module.__file__).endswith(".so")
    ]
    classes = {
        cls
        for module in modules
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__
    }
    assert Context in classes
    assert {cls for cls in classes if cls.__weakrefoffset__} == set()

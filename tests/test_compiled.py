"""What holds of the compiled hot path alone (deploy/compiled.py); of the sources there is nothing to ask."""

import subprocess
import sys

import pytest

from tests.helpers.compiled import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")

REFERRED_TO = """
import gc, weakref
from meshproxy.one_line import OneLineFormatter
from meshproxy.policies.propagation import _Deadlines, Context

told = []
for make in (Context, OneLineFormatter, _Deadlines):
    for number in range(1000):
        one = make()
        if number % 2:
            one.itself = one  # the collector's
        before, after = weakref.ref(one), weakref.ref(one, lambda gone: told.append(gone()))
        assert before() is one
        del one
        if number % 100 == 99:
            gc.collect()
            assert (before(), after()) == (None, None)
        kept = [before, after]
assert set(told) == {None}
"""


def test_who_refers_weakly_to_what_is_compiled_hears_that_it_has_gone() -> None:
    """And the interpreter lives on: of the C as mypyc writes it, for Python 3.11, neither is true."""
    done = subprocess.run(
        [sys.executable, "-c", REFERRED_TO], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

import subprocess
import sys

from meshproxy import malloc

PROGRAM = """
from meshproxy import malloc
from meshproxy.downstream.admission import resident_memory

malloc.tune()
before = resident_memory()
pieces = [b"x" * 100_000 for _ in range(600)]
above = b"x" * 100_000
pieces.clear()
kept = resident_memory() - before
malloc.trim()
print(kept, resident_memory() - before)
"""


def test_what_is_kept_can_be_given_back() -> None:
    """Tuned, it keeps sixty megabytes that nobody uses; trimmed, it does not."""
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True
    )
    kept, left = map(int, said.stdout.split())
    if malloc._function("malloc_trim") is not None:
        assert kept > 50 << 20
    assert left < 10 << 20

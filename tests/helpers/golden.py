"""
Golden files: what was generated once, read by a person, and must not change unnoticed.

``REWRITE_GOLDEN=1 pytest …`` writes them anew; the review of the change is then the diff.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from meshproxy.contract import wire


def assert_golden(value: Any, path: Path) -> None:
    """Compare `value`, as JSON, with the file at `path`."""
    text = msgspec.json.format(wire.encode(value)).decode() + "\n"
    if os.environ.get("REWRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run with REWRITE_GOLDEN=1 and read what it wrote"
    assert text == path.read_text()

"""Whether the hot path runs as it stands in its sources, or translated to C (deploy/compiled.py)."""

from typing import Final

from meshproxy import exchange

COMPILED: Final = exchange.__file__.endswith(".so")

"""What types cannot say about one resource: names, ranges, combinations."""

from collections.abc import Iterator

from .finding import Finding
from .parse import Source


def validate(source: Source) -> Iterator[Finding]:
    """Yield what is wrong with a resource, whatever else is in the mesh."""
    yield from ()
    _ = source

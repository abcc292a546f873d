"""The document that compares us with others must be true of us, and be about all vectors."""

import re

from tests.conformance.differential import DOCUMENT, TABLE, classes, must_refuse, vectors


def test_our_column_says_what_the_vectors_say() -> None:
    """Each class stands there once, with its number of vectors and of our refusals."""
    found = TABLE.search(DOCUMENT.read_text())
    assert found is not None
    rows = {
        kind: (int(count), int(ours))
        for kind, count, ours in re.findall(
            r"^\| ([^*|]+?) \| (\d+) \| (\d+) \|", found[0], re.MULTILINE
        )
    }
    expected = {
        kind: (len(group), sum(map(must_refuse, group)))
        for kind, group in classes(vectors()).items()
    }
    assert rows == expected

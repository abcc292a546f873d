"""`docs/limits.md` states every default, and is compared with the code."""

import importlib
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "limits.md"
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<value>[\d.]+) \| `(?P<module>[\w.]+):(?P<name>[^`]+)` \|", re.MULTILINE)  # fmt: skip
ROWS = [match.groups() for match in ROW.finditer(DOCUMENT.read_text())]


@pytest.mark.parametrize(("what", "value", "module", "name"), ROWS, ids=[row[3] for row in ROWS])
def test_the_document_says_what_the_code_does(
    what: str, value: str, module: str, name: str
) -> None:
    """Each row names a constant, and has its value."""
    found = importlib.import_module(module)
    attribute, index = re.fullmatch(r"([\w.]+)(?:\[(\d)\])?", name).groups()  # type: ignore[union-attr]
    for part in attribute.split("."):
        found = getattr(found, part)
    actual = found[int(index)] if index else found  # type: ignore[index]
    assert float(value) == (len(actual) if isinstance(actual, memoryview) else actual), what


def test_all_rows_are_understood() -> None:
    """None is skipped because of a slip."""
    rows = [
        line
        for line in DOCUMENT.read_text().splitlines()
        if re.search(r"\| `(meshproxy|control_plane)\b", line)
    ]
    assert len(ROWS) == len(rows) > 25

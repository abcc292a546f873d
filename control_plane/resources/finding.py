"""
What is wrong with what somebody wrote, said so that they can mend it.

One finding is one line:

    my-mesh/split.yaml:14: HTTPRoute/default/split: spec.rules[0].backendRefs[1].weight: "ten" is a
    string, expected an integer 0 to 1000000

An *error* keeps its file out of force.  *Unresolved* is what the Gateway API makes of a reference
to something that does not exist: the resource applies, and the finding says which condition is
False until it resolves.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from meshproxy.one_line import one_line

Path = tuple[str | int, ...]
"""Way to a field: names of mappings, indexes of lists."""


class Finding(Struct, frozen=True, kw_only=True, order=True):
    """
    Attributes:
        file: As it was given, or found below a folder that was given.
        line: Counted from 1; 0 when the whole file is meant.
        kind: Of the resource, or empty where there is no telling.
        name: ``namespace/name`` of the resource, or empty.
        field: Such as ``spec.rules[0].matches[1].path.value``, or empty.
        message: What is wrong, what was expected.
    """

    file: str
    line: int = 0
    kind: str = ""
    name: str = ""
    field: str = ""
    message: str
    severity: Literal["error", "unresolved"] = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = f"{self.kind}/{self.name}" if self.name else self.kind
        parts = (where, what, self.field, self.message)
        return one_line(": ".join(part for part in parts if part))


MOST = 100
"""Findings about one file: whoever has so many knows enough, and a file can be made of them."""

_LONGEST_STEP = 317  # the longest key that is a good one: a label's, with its prefix


def most(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the first `MOST` findings of each file, and after them that there are more."""
    counts: Counter[str] = Counter()
    for finding in findings:
        counts[finding.file] += 1
        if counts[finding.file] <= MOST:
            yield finding
        elif counts[finding.file] == MOST + 1:
            yield Finding(file=finding.file, message=f"there are more than {MOST} findings")


def dotted(path: Path) -> str:
    """Return a path as people write it: ``spec.rules[0].name``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        if len(step) > _LONGEST_STEP:
            step = f"{step[:_LONGEST_STEP]}..."
        if "." in step or "/" in step:
            text += f"[{step!r}]"  # a label or annotation key
        else:
            text += f".{step}" if text else step
    return text

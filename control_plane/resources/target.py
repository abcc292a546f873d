"""The rules for `targetRefs`, which all policies share (GEP-713)."""

from collections.abc import Sequence

from . import syntax
from .finding import Path
from .policies import TargetRef
from .route import Problems, at_most

MAX_TARGETS = 16


def problems_of_targets(targets: Sequence[TargetRef], *, required: bool) -> Problems:
    """Yield what is wrong with them; a policy that routes can refer to may have none."""
    path: Path = ("spec", "targetRefs")
    if required and not targets:
        yield path, "is empty, expected at least one Service"
    yield from at_most(path, targets, MAX_TARGETS)
    for index, target in enumerate(targets):
        if wrong := syntax.service_name(target.name):
            yield (*path, index, "name"), wrong
        if target.section_name is not None and (wrong := syntax.dns_label(target.section_name)):
            yield (*path, index, "sectionName"), wrong
        if target in targets[:index]:
            yield (*path, index), f"is the same as targetRefs[{targets.index(target)}]"

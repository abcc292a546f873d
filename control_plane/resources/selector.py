"""The rules for `selector`, which all security policies share."""

from . import syntax
from .finding import Path
from .route import Problems
from .security import Selector

_PATH: Path = ("spec", "selector", "matchLabels")


def problems_of_selector(selector: Selector | None) -> Problems:
    """Yield what is wrong with it; one without labels would look like more than it is."""
    if selector is None:
        return
    if not selector.match_labels:
        yield _PATH, "is empty, expected a label; leave `selector` out to mean all workloads"
    for key, value in selector.match_labels.items():
        if wrong := syntax.label_key(key) or syntax.label_value(value):
            yield (*_PATH, key), wrong

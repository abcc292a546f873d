"""What the rules of a RateLimitPolicy and of a FaultInjection share: names, and whom they mean."""

from collections.abc import Sequence

from . import syntax
from .caller import problems_of_caller
from .finding import Path
from .http_route import problems_of_match
from .policies import FaultRule, RateLimitRule
from .route import MAX_ITEMS, Problems, at_most

PATH: Path = ("spec", "rules")


def problems_of_rules(rules: Sequence[RateLimitRule | FaultRule]) -> Problems:
    """Yield what is wrong with rules, but for what they do."""
    if not rules:
        yield PATH, "is empty, expected at least one rule"
    yield from at_most(PATH, rules, MAX_ITEMS)
    names: dict[str, int] = {}
    for number, rule in enumerate(rules):
        here = (*PATH, number)
        if rule.name is not None:
            if wrong := syntax.dns_name(rule.name):
                yield (*here, "name"), wrong
            if names.setdefault(rule.name, number) != number:
                first = names[rule.name]
                yield (*here, "name"), f'"{rule.name}" is also the name of rules[{first}]'
        yield from problems_of_match((*here, "match"), rule.match)
        yield from problems_of_caller((*here, "from"), rule.source)

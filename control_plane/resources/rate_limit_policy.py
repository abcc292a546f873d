"""What types cannot say about a RateLimitPolicy."""

from . import syntax
from .policies import RateLimitPolicy
from .route import Problems
from .rules import PATH, problems_of_rules
from .target import problems_of_targets


def problems_of_policy(policy: RateLimitPolicy) -> Problems:
    """Yield what is wrong with a policy, whatever it refers to, or refers to it."""
    yield from problems_of_targets(policy.spec.target_refs, required=False)
    yield from problems_of_rules(policy.spec.rules)
    for number, rule in enumerate(policy.spec.rules):
        here = (*PATH, number, "per")
        if rule.per.type == "Header":
            if rule.per.header is None:
                yield (*here, "header"), "is missing, expected it with type Header"
            elif wrong := syntax.header_name(rule.per.header):
                yield (*here, "header"), wrong
        elif rule.per.header is not None:
            yield (*here, "header"), f"does not go with type {rule.per.type}, expected Header"

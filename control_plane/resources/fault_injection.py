"""What types cannot say about a FaultInjection."""

from .policies import FaultInjection
from .route import Problems
from .rules import PATH, problems_of_rules
from .target import problems_of_targets


def problems_of_policy(policy: FaultInjection) -> Problems:
    """Yield what is wrong with a policy, whatever it refers to, or refers to it."""
    yield from problems_of_targets(policy.spec.target_refs, required=False)
    yield from problems_of_rules(policy.spec.rules)
    for number, rule in enumerate(policy.spec.rules):
        here = (*PATH, number)
        shares = [part.percent for part in (rule.delay, rule.abort) if part is not None]
        if not shares:
            yield here, "has neither delay nor abort, expected one of them, or both"
        elif not any(shares):
            yield here, "does nothing with a percent of 0, expected it above 0, or no such rule"
        abort = rule.abort
        if abort is not None and abort.http_status is None and abort.grpc_status is None:
            message = "has neither httpStatus nor grpcStatus, expected one of them, or both"
            yield (*here, "abort"), message

"""
The endpoint for a further attempt: one that was not tried yet, as long as there is one.

Avoiding the last one alone lets a request go to and fro between two endpoints that are ill while a
third is well; so all are avoided that were tried (Envoy's `previous_hosts`).  When all were, a new
round begins, but not with the one that has just failed.

Called from: `Exchange.begin_attempt`, `Relay.begin_attempt`.
"""

from collections.abc import Callable
from typing import TypeVar

E = TypeVar("E")


def another(
    pick: Callable[[tuple[E, ...] | None, int | None], E | None],
    tried: tuple[E, ...],
    key: int | None,
) -> tuple[E | None, tuple[E, ...]]:
    """
    Return the endpoint, or None where there is none at all; and who was tried in its round.

    Args:
        pick: `Balancer.pick`.
        tried: In this round, the last one last; at least one.
        key: For `pick`.
    """
    endpoint = pick(tried, key)
    if endpoint in tried and len(tried) > 1:
        tried = tried[-1:]
        endpoint = pick(tried, key)
    return endpoint, tried

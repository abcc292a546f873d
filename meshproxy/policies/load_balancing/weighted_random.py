"""
Random: any endpoint, as often as its weight says.

It keeps no state and looks at nothing, so it cannot be wrong about anything either; at many
requests per endpoint it is even enough.  The busiest of n has about log n / log log n times its
share, though, which is why `least_request` looks twice.

Called from: `Cluster.pick`.   Configured by: `LoadBalancingSpec.algorithm`.
"""

from collections.abc import Collection

from .endpoint import E
from .two_choices import TwoChoices


class WeightedRandom(TwoChoices[E]):
    """See `endpoint.Balancer`; of the two that could be drawn, it draws one."""

    __slots__ = ()

    def pick(self, avoid: Collection[E] | None, key: int | None = None) -> E | None:  # noqa: ARG002
        if avoid is not None:
            return self.draw(avoid)
        if not self._count:
            return None
        level = self._level
        if level is not None:
            return level[int(self._random() * self._count)]
        return self._endpoints[self._point(())]

    def better(self, first: E, second: E) -> E:  # noqa: ARG002  # the second was drawn in vain
        return first

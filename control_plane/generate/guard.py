"""What stands before the ports of a workload: who may ask what, and whose tokens count."""

from typing import NamedTuple

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import AuthorizationSpec


class Guard(NamedTuple):
    """Attributes: the same for all ports of one workload."""

    authorization: tuple[AuthorizationSpec, ...] = ()
    jwt: tuple[JwtSpec, ...] = ()


NO_GUARD = Guard()

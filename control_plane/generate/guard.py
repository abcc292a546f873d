"""What stands before the ports of a workload: who may ask what, and whose tokens count."""

from collections.abc import Collection

from control_plane.resources.model import MeshConfig, Workload
from control_plane.resources.security import SecurityPolicy
from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import AuthorizationSpec

from .authentication import NO_KEY_SETS, KeySets, authentication
from .authorization import authorization


class Guard:
    """The security policies of one workload, asked port by port."""

    def __init__(
        self,
        workload: Workload,
        security: Collection[SecurityPolicy],
        mesh: MeshConfig,
        key_sets: KeySets = NO_KEY_SETS,
    ) -> None:
        self._workload = workload
        self._security = security
        self._mesh = mesh
        self.jwt: tuple[JwtSpec, ...] = authentication(workload, security, mesh, key_sets)

    def authorization(self, port: int) -> tuple[AuthorizationSpec, ...]:
        """Return what holds for a port."""
        return authorization(self._workload, port, self._security, self._mesh)

"""RequestAuthentications to the contract: whose tokens the ports of a workload believe."""

from collections.abc import Iterable, Mapping

from control_plane.resources.duration import milliseconds
from control_plane.resources.model import MeshConfig, Workload
from control_plane.resources.security import JWTRule, RequestAuthentication, SecurityPolicy
from control_plane.resources.selection import selected
from meshproxy.contract.authentication import ClaimHeaderSpec, JwtSpec, TokenHeaderSpec

KeySets = Mapping[tuple[str, str], str]
"""(``namespace/name`` of a policy, issuer) → its key set, where the policy says file or address."""

NO_KEY_SETS: KeySets = {}


def authentication(
    workload: Workload,
    policies: Iterable[SecurityPolicy],
    mesh: MeshConfig,
    key_sets: KeySets,
) -> tuple[JwtSpec, ...]:
    """
    Return the issuers; of two policies that name the same, the older decides.

    Args:
        workload: The workload.
        policies: All of the mesh.
        mesh: The mesh.
        key_sets: What files and addresses have given.
    """
    found: dict[str, JwtSpec] = {}
    for policy in selected(RequestAuthentication, workload, policies, mesh):
        for rule in policy.spec.jwt_rules:
            name = f"{policy.metadata.namespace}/{policy.metadata.name}"
            found.setdefault(rule.issuer, _issuer(name, rule, key_sets))
    return tuple(found.values())


def _issuer(name: str, rule: JWTRule, key_sets: KeySets) -> JwtSpec:
    """Without keys yet, none of the issuer's tokens is right: that is said by empty `keys`."""
    keys = rule.jwks
    if keys is None:
        keys = key_sets.get((name, rule.issuer), "")
    return JwtSpec(
        name=name,
        issuer=rule.issuer,
        audiences=rule.audiences,
        keys=keys,
        headers=tuple(
            TokenHeaderSpec(name=one.name, prefix=one.prefix) for one in rule.from_headers
        ),
        params=rule.from_params,
        forward=rule.forward_original_token,
        claim_headers=tuple(
            ClaimHeaderSpec(header=one.header, claim=one.claim)
            for one in rule.output_claim_to_headers
        ),
        leeway=milliseconds(rule.leeway),
    )

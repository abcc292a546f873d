"""
Who may do what: the kinds of security, with the names and meanings of their YAML.

Names, nesting and wildcards are Istio's, since that is what people know; where ours differ, a
docstring says so.  A policy selects workloads by labels in its own namespace, all of them without
`selector`; with ``scope: Mesh``, which only the namespace of the MeshConfig may say, everywhere.
"""

from typing import Literal

from msgspec import field

from .fields import Duration, Metadata, Model, Port

Texts = tuple[str, ...]


class Selector(Model, frozen=True, kw_only=True):
    match_labels: dict[str, str] = {}


Scope = Literal["Namespace", "Mesh"]

# PeerAuthentication (meshproxy.io/v1alpha1) ---------------------------------------------------------


class Mtls(Model, frozen=True, kw_only=True):
    """STRICT refuses plaintext, PERMISSIVE tells it from mutual TLS by the first bytes."""

    mode: Literal["STRICT", "PERMISSIVE"]


class PeerAuthenticationSpec(Model, frozen=True, kw_only=True):
    """
    Attributes:
        mtls: Of all ports but those below.
        port_level_mtls: By number of a workload's port.
    """

    selector: Selector | None = None
    mtls: Mtls | None = None
    port_level_mtls: dict[str, Mtls] = {}


class PeerAuthentication(Model, frozen=True, kw_only=True):
    """
    What the inbound ports of workloads accept.

    The most specific decides: port, then selector, then namespace, then the MeshConfig's `mtls`; of
    two alike, the older.
    """

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["PeerAuthentication"]
    metadata: Metadata
    spec: PeerAuthenticationSpec


# AuthorizationPolicy (meshproxy.io/v1alpha1) --------------------------------------------------------


class Source(Model, frozen=True, kw_only=True):
    """Who calls: all that is given must hold; SPIFFE IDs with or without ``spiffe://``."""

    principals: Texts = ()
    not_principals: Texts = ()
    namespaces: Texts = ()
    not_namespaces: Texts = ()
    trust_domains: Texts = ()
    not_trust_domains: Texts = ()
    ip_blocks: Texts = ()
    not_ip_blocks: Texts = ()
    request_principals: Texts = ()
    not_request_principals: Texts = ()


class GRPCOperation(Model, frozen=True, kw_only=True):
    """At least one of both; what is left out means any."""

    service: str = "*"
    method: str = "*"


class Operation(Model, frozen=True, kw_only=True):
    """
    What is asked: all that is given must hold.

    Attributes:
        paths: Also templates: ``/users/{*}/orders``, ``/files/{**}``.
        grpc: Instead of `paths` and `methods`.
    """

    hosts: Texts = ()
    not_hosts: Texts = ()
    methods: Texts = ()
    not_methods: Texts = ()
    paths: Texts = ()
    not_paths: Texts = ()
    ports: tuple[Port, ...] = ()
    not_ports: tuple[Port, ...] = ()
    grpc: tuple[GRPCOperation, ...] = ()


class RuleFrom(Model, frozen=True, kw_only=True):
    source: Source


class RuleTo(Model, frozen=True, kw_only=True):
    operation: Operation


class Condition(Model, frozen=True, kw_only=True):
    """`key` is ``request.headers[name]`` or ``request.auth.claims[name]``, nested ``[a][b]``."""

    key: str
    values: Texts = ()
    not_values: Texts = ()


class AuthorizationRule(Model, frozen=True, kw_only=True):
    """One of `from`, one of `to`, and all of `when`; `name` is for who asks which rule decided."""

    name: str | None = None
    sources: tuple[RuleFrom, ...] = field(name="from", default=())
    to: tuple[RuleTo, ...] = ()
    when: tuple[Condition, ...] = ()


class AuthorizationPolicySpec(Model, frozen=True, kw_only=True):
    """An ALLOW without rules allows nothing; a DENY without rules denies nothing."""

    selector: Selector | None = None
    scope: Scope = "Namespace"
    action: Literal["ALLOW", "DENY", "AUDIT"] = "ALLOW"
    rules: tuple[AuthorizationRule, ...] = ()


class AuthorizationPolicy(Model, frozen=True, kw_only=True):
    """AUDIT counts and logs what DENY would have stopped (Istio's AUDIT does less)."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["AuthorizationPolicy"]
    metadata: Metadata
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


# RequestAuthentication (meshproxy.io/v1alpha1) ------------------------------------------------------


class TokenHeader(Model, frozen=True, kw_only=True):
    name: str
    prefix: str = ""


class ClaimToHeader(Model, frozen=True, kw_only=True):
    header: str
    claim: str


class JWTRule(Model, frozen=True, kw_only=True):
    """
    An issuer, and where its keys are: exactly one of `jwks`, `jwks_file`, `jwks_uri`.

    Attributes:
        jwks: The key set itself, JSON.
        jwks_file: Relative to the file that declares the policy.
        jwks_uri: The control plane fetches it, from hosts that the MeshConfig lists.
    """

    issuer: str
    audiences: Texts = ()
    jwks: str | None = None
    jwks_file: str | None = None
    jwks_uri: str | None = None
    from_headers: tuple[TokenHeader, ...] = ()
    from_params: Texts = ()
    forward_original_token: bool = False
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    leeway: Duration = "1m"


class RequestAuthenticationSpec(Model, frozen=True, kw_only=True):
    selector: Selector | None = None
    scope: Scope = "Namespace"
    jwt_rules: tuple[JWTRule, ...]


class RequestAuthentication(Model, frozen=True, kw_only=True):
    """Whose tokens are believed: a wrong one is answered 401, none is no error."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["RequestAuthentication"]
    metadata: Metadata
    spec: RequestAuthenticationSpec


SecurityPolicy = PeerAuthentication | AuthorizationPolicy | RequestAuthentication

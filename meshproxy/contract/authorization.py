"""
The specs of authorization: who may ask what of a workload.

In all of them, a list that is empty says nothing; of a list that is not, one entry must match, and
none of its `not_` twin.  Entries are texts with at most one ``*``, at their beginning or end (see
`routing/pattern.py`), unless a docstring says otherwise.
"""

from typing import Literal

from .spec import Name, Spec


class SourceSpec(Spec, frozen=True, kw_only=True):
    """
    Who sends a request; all that is given must hold.

    Attributes:
        principals: SPIFFE IDs that mutual TLS has proved; ``*`` means any, but proved.
        namespaces: The part after ``/ns/`` of such an ID.
        trust_domains: Its first part.
        ip_blocks: Addresses or networks in CIDR notation, of the connection's other end.
        request_principals: ``issuer/subject`` of a valid JWT.
    """

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()


class OperationSpec(Spec, frozen=True, kw_only=True):
    """
    What is asked; all that is given must hold.

    Attributes:
        hosts: Authorities, in lower case; without a port they mean any.
        methods: Of HTTP; one in small letters is denied like its capitals, and allowed like both.
        paths: Without the query.  Also templates: ``{*}`` stands for one segment, ``{**}`` at the
            end for any rest.  gRPC's are ``/package.Service/Method``.
    """

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class FactSpec(Spec, frozen=True, kw_only=True):
    """
    A header of the request, or a claim of its JWT.

    Attributes:
        name: Of the header.
        path: To the claim: its name, or those of the objects that it is in, then its own.
        values: Of a claim that is a list, one must match.
    """

    kind: Literal["header", "claim"]
    name: str = ""
    path: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class AuthorizationRuleSpec(Spec, frozen=True, kw_only=True):
    """
    Matches when one of the sources, one of the operations and all of the facts do.

    Attributes:
        name: For the person who asks which rule decided.
    """

    name: str = ""
    sources: tuple[SourceSpec, ...] = ()
    operations: tuple[OperationSpec, ...] = ()
    facts: tuple[FactSpec, ...] = ()


class AuthorizationSpec(Spec, frozen=True, kw_only=True):
    """
    One policy (kind AuthorizationPolicy).

    Attributes:
        name: ``namespace/name``.
        action: `deny` wins; if any policy is `allow`, one of these must match; `audit` decides
            nothing and counts what it would have denied.
        rules: Without any, nothing matches: an empty `allow` denies all.
    """

    name: Name
    action: Literal["allow", "deny", "audit"] = "allow"
    rules: tuple[AuthorizationRuleSpec, ...] = ()

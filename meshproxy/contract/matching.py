"""Conditions on a request and on who sends it, as routes and policies ask them."""

from typing import Literal

from .spec import Name, Spec


class PathMatchSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute `matches[].path`; `prefix` matches whole path segments, `regex` is RE2 syntax."""

    type: Literal["exact", "prefix", "regex"]
    value: str


class ValueMatchSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute `matches[].headers[]` and `queryParams[]`; `regex` must match the whole value."""

    name: Name
    type: Literal["exact", "regex"] = "exact"
    value: str


class MatchSpec(Spec, frozen=True, kw_only=True):
    """
    Conditions on a request; all that are given must hold.  Empty matches every request.

    Attributes:
        grpc: It is a gRPC call: a POST with one of gRPC's content types.
    """

    path: PathMatchSpec | None = None
    grpc: bool = False
    method: str | None = None
    headers: tuple[ValueMatchSpec, ...] = ()
    query: tuple[ValueMatchSpec, ...] = ()


class IdentityMatchSpec(Spec, frozen=True, kw_only=True):
    """
    Who calls; all that are given must hold.

    Attributes:
        principals: SPIFFE IDs of which one must be the caller's; a ``*`` at the end stands for any
            rest.
    """

    principals: tuple[str, ...] = ()

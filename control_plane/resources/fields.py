"""What all models have in common: their base class, metadata, and the kinds of values in them."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
Duration = Annotated[str, Meta(extra={"duration": 0})]
"""GEP-2257: ``1h30m``, ``10s``, ``250ms``; `schema` checks it.  ``0s`` is "no limit" where it makes sense."""
Period = Annotated[str, Meta(extra={"duration": 1})]
"""A duration of which ``0s`` would make no sense."""
Percent = Annotated[int, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Attempts = Annotated[int, Meta(ge=0, le=99)]
"""Retries: tries in addition to the first, as the Gateway API and Istio count."""
RetryCode = Annotated[int, Meta(ge=400, le=599)]
"""HTTPRouteRetryStatusCode."""


class Model(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of all models."""


class Metadata(Model, frozen=True, kw_only=True):
    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None


class CookieConfig(Model, frozen=True, kw_only=True):
    """`Permanent` outlives the session of the browser; then `absoluteTimeout` says how long."""

    lifetime_type: Literal["Session", "Permanent"] = "Session"


class SessionPersistence(Model, frozen=True, kw_only=True):
    """
    GEP-1619: the same client, the same endpoint; of a route's rule, or of a Service.

    Attributes:
        session_name: Of the cookie or header.
        absolute_timeout: The session ends that long after it began.
        cookie_config: Of type Cookie alone.
    """

    session_name: str | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    absolute_timeout: Period | None = None
    cookie_config: CookieConfig | None = None

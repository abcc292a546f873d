"""The rules of GEP-1619 for `sessionPersistence`, of a route's rule or of a TrafficPolicy."""

from . import syntax
from .fields import SessionPersistence
from .finding import Path
from .route import Problems

MAX_NAME = 128
RESERVED = "x-mesh-"
"""Header fields between proxies: what comes from outside under such a name is dropped."""


def problems_of_session(path: Path, session: SessionPersistence) -> Problems:
    """Yield what is wrong with one."""
    name = session.session_name
    if name is not None:
        if not 1 <= len(name) <= MAX_NAME:
            message = f"has {len(name)} characters, expected 1 to {MAX_NAME}"
            yield (*path, "sessionName"), message
        elif wrong := syntax.header_name(name):  # RFC 6265: a cookie's name is a token as well
            yield (*path, "sessionName"), wrong
        elif name.lower().startswith(RESERVED):
            yield (
                (*path, "sessionName"),
                f'"{name}" begins with {RESERVED}, which is the mesh\'s own',
            )
    cookie = session.cookie_config
    if cookie is None:
        return
    if session.type != "Cookie":
        yield (*path, "cookieConfig"), f"does not go with type {session.type}, expected Cookie"
    elif cookie.lifetime_type == "Permanent" and session.absolute_timeout is None:
        # "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent"
        message = "is missing, expected it with lifetimeType Permanent"
        yield (*path, "absoluteTimeout"), message

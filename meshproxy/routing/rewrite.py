"""
What a route changes about a message: header modifiers, URL rewrites, redirects.

The semantics are the Gateway API's (HTTPHeaderFilter, HTTPURLRewriteFilter,
HTTPRequestRedirectFilter).  Values are checked once, when a snapshot is compiled: what the
proxy writes into a head by configuration must not be able to break out of its line.
"""

import re
from typing import Final

from meshproxy.contract.resources import (
    HeaderModifierSpec,
    HeaderSpec,
    PathRewriteSpec,
    RedirectSpec,
    RewriteSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, Fields, RequestHead, field

from . import writable

_PORT: Final = re.compile(rb":([0-9]*)\Z")
_WELL_KNOWN: Final = {b"http": b"80", b"https": b"443"}


# Headers ------------------------------------------------------------------------------------------


class HeaderModifier:
    """
    Sets, adds and removes fields, in this order; so a name that is also removed ends up absent.

    `set` replaces all fields of a name; `add` keeps those there are.  Of entries of `set` with an
    equivalent name only the first counts (Gateway API, HTTPHeaderFilter).
    """

    __slots__ = ("_appended", "_dropped")

    def __init__(self, spec: HeaderModifierSpec, where: str = "") -> None:
        """
        Raises:
            ContractError: A name or value is not valid, or a field is the proxy's own to write.
        """
        removed = {name.lower().encode() for name in spec.remove}
        replaced: dict[bytes, Field] = {}
        for index, header in enumerate(spec.set):
            made = _field(header, f"{where}.set[{index}]")
            replaced.setdefault(made[0], made)
        added = [_field(header, f"{where}.add[{index}]") for index, header in enumerate(spec.add)]
        self._dropped = frozenset(removed | replaced.keys())
        self._appended = tuple(f for f in (*replaced.values(), *added) if f[0] not in removed)

    def apply(self, fields: Fields) -> Fields:
        """Return the modified fields; the given list stays as it was."""
        dropped = self._dropped
        kept = [f for f in fields if f[0] not in dropped] if dropped else fields.copy()
        kept.extend(self._appended)
        return kept


def _field(header: HeaderSpec, where: str) -> Field:
    _check(f"{where}.name", writable.wrong_name(header.name))
    _check(f"{where}.value", writable.wrong_value(header.value))
    return field(header.name.encode(), header.value.encode())


def _check(where: str, wrong: str | None) -> None:
    if wrong is not None:
        raise ContractError(where, wrong)


# Paths --------------------------------------------------------------------------------------------


class _PathChange:
    """ReplaceFullPath or ReplacePrefixMatch."""

    __slots__ = ("_cut", "_replacement")

    def __init__(self, spec: PathRewriteSpec, prefix: bytes | None, where: str) -> None:
        _check(f"{where}.value", writable.wrong_path(spec.value))
        self._replacement = spec.value.encode()
        self._cut: int | None = None
        if spec.type == "prefix":
            if prefix is None:
                raise ContractError(where, "a prefix is replaced only where a prefix is matched")
            self._cut = len(prefix)
            self._replacement = self._replacement.removesuffix(b"/")

    def changed(self, target: bytes) -> bytes:
        """
        Return `target` (path and query) with its path changed and its query kept.

        The slash between replacement and rest follows the table of ReplacePrefixMatch: ``/foo/bar``
        under prefix ``/foo`` or ``/foo/`` becomes ``/xyz/bar`` for both ``/xyz`` and ``/xyz/``, and
        the path never becomes empty.
        """
        path, mark, query = target.partition(b"?")
        if not path.startswith(b"/"):
            return target  # `OPTIONS *` is about the server, not about a path
        rest = b"" if self._cut is None else path[self._cut :]
        return (self._replacement + rest or b"/") + mark + query


def _hostname(value: str, where: str) -> bytes:
    _check(f"{where}.hostname", writable.wrong_hostname(value))
    return value.encode()


class Rewrite:
    """HTTPRoute filter URLRewrite: changes where the request says it goes, and nothing else."""

    __slots__ = ("_hostname", "_path")

    def __init__(self, spec: RewriteSpec, prefix: bytes | None = None, where: str = "") -> None:
        """
        Make the rewrite of a route whose path prefix, if it matches one, is `prefix` (without its
        trailing slash).

        Raises:
            ContractError: The host name or path is not valid, or there is no prefix to replace.
        """
        self._hostname = None if spec.hostname is None else _hostname(spec.hostname, where)
        self._path = None if spec.path is None else _PathChange(spec.path, prefix, f"{where}.path")

    def apply(self, head: RequestHead) -> None:
        if self._hostname is not None:
            head.authority = self._hostname
        if self._path is not None:
            head.path = self._path.changed(head.path)


# Redirects ----------------------------------------------------------------------------------------


class Redirect:
    """
    HTTPRoute filter RequestRedirect: what is not given stays as the request had it.

    The port follows the Gateway API: the given one; else, when a scheme is given, the well-known
    port of that scheme; else the port on which the request came in.  A port that the scheme
    implies is left out of the Location.
    """

    __slots__ = ("_hostname", "_path", "_port", "_scheme", "status")

    def __init__(self, spec: RedirectSpec, prefix: bytes | None = None, where: str = "") -> None:
        """
        Raises:
            ContractError: As for `Rewrite`.
        """
        self.status: int = spec.status
        self._scheme = None if spec.scheme is None else spec.scheme.encode()
        self._hostname = None if spec.hostname is None else _hostname(spec.hostname, where)
        self._port = None if spec.port is None else b"%d" % spec.port
        self._path = None if spec.path is None else _PathChange(spec.path, prefix, f"{where}.path")

    def location(self, head: RequestHead) -> bytes:
        """Return the value of the Location field; the request's query is kept."""
        scheme = self._scheme or head.scheme
        written = _PORT.search(head.authority)
        host = head.authority if written is None else head.authority[: written.start()]
        port = self._port
        if port is None and self._scheme is None and written is not None:
            port = written[1]
        authority = self._hostname or host
        if port and port != _WELL_KNOWN.get(scheme):
            authority += b":" + port
        target = head.path if head.path.startswith(b"/") else b"/"
        if self._path is not None:
            target = self._path.changed(target)
        return scheme + b"://" + authority + target

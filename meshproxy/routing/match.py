"""
Conditions on a request: path, method, headers, query parameters; and on who sends it.

All conditions are positive, so they fail closed: what cannot be read (a broken percent escape,
bytes that are not UTF-8) does not match.  Regular expressions are RE2's, which run in linear time
whatever the pattern and the input, and they must match the whole value.  The library is loaded
only when a snapshot holds a regular expression.
"""

import re
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from meshproxy.codec.grpc import is_grpc
from meshproxy.contract.matching import (
    IdentityMatchSpec,
    MatchSpec,
    PathMatchSpec,
    ValueMatchSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, value_of

_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Condition(Protocol):
    """One thing that must hold."""

    def holds(self, head: RequestHead) -> bool: ...


class Match:
    """
    A route's conditions; all must hold.

    The path is kept apart from the other conditions because the table finds routes by it.

    Attributes:
        exact: The path to be equal to, or None.
        prefix: The path prefix without its trailing slash (``b""`` matches every path), or None.
            With neither `exact` nor `prefix`, the path is matched by one of the conditions.
        conditions: The rest.
    """

    __slots__ = ("conditions", "exact", "prefix")

    def __init__(self, spec: MatchSpec, where: str = "match") -> None:
        """
        Raises:
            ContractError: A path does not start with a slash, or a regular expression is wrong.
        """
        self.exact: bytes | None = None
        self.prefix: bytes | None = None
        conditions: list[Condition] = []
        # Cheapest first: the first that fails ends the comparison.
        if spec.method is not None:
            conditions.append(MethodMatch(spec.method))
        if spec.grpc:
            conditions.append(GrpcMatch())
        if spec.path is None:
            self.prefix = b""
        elif spec.path.type == "regex":
            conditions.append(PathPattern(spec.path.value, f"{where}.path.value"))
        elif spec.path.type == "exact":
            self.exact = _path(spec.path, where)
        else:
            self.prefix = _path(spec.path, where).removesuffix(b"/")
        # "If multiple entries specify equivalent header names, only the first entry with an
        # equivalent name MUST be considered for a match"; query parameters likewise, but their
        # names are case-sensitive (Gateway API, HTTPRouteMatch).
        headers: dict[bytes, Condition] = {}
        for index, header in enumerate(spec.headers):
            name = header.name.lower().encode()
            headers.setdefault(name, HeaderMatch(header, f"{where}.headers[{index}].value"))
        params: dict[bytes, Condition] = {}
        for index, param in enumerate(spec.query):
            name = param.name.encode()
            params.setdefault(name, QueryMatch(param, f"{where}.query[{index}].value"))
        self.conditions = (*conditions, *headers.values(), *params.values())

    def holds(self, head: RequestHead) -> bool:
        """Say whether all conditions hold, the path's included."""
        path = head.path.partition(b"?")[0]
        if self.exact is not None and path != self.exact:
            return False
        # Whole segments: /api matches /api and /api/x, but not /apix.
        if self.prefix and path != self.prefix and not path.startswith(self.prefix + b"/"):
            return False
        return self.rest_holds(head)

    def rest_holds(self, head: RequestHead) -> bool:
        """Say whether the conditions hold, given that `exact` or `prefix` does."""
        for condition in self.conditions:  # noqa: SIM110 - all() would make a generator a request
            if not condition.holds(head):
                return False
        return True


def _path(spec: PathMatchSpec, where: str) -> bytes:
    if not spec.value.startswith("/"):
        raise ContractError(
            f"{where}.path.value", f"expected a path that starts with '/', got {spec.value!r}"
        )
    return spec.value.encode()


class MethodMatch:
    """Methods are case-sensitive (RFC 9110 section 9.1)."""

    __slots__ = ("_method",)

    def __init__(self, method: str) -> None:
        self._method = method.encode()

    def holds(self, head: RequestHead) -> bool:
        return head.method == self._method


class GrpcMatch:
    """The request is a gRPC call."""

    __slots__ = ()

    def holds(self, head: RequestHead) -> bool:
        return is_grpc(head.method, head.fields)


class PathPattern:
    """A regular expression over the path without the query."""

    __slots__ = ("_pattern",)

    def __init__(self, pattern: str, where: str) -> None:
        self._pattern = compile_pattern(pattern, where)

    def holds(self, head: RequestHead) -> bool:
        return self._pattern.fullmatch(head.path.partition(b"?")[0]) is not None


class _ValueMatch:
    """What matching a header and matching a query parameter share."""

    __slots__ = ("_name", "_pattern", "_value")

    def __init__(self, spec: ValueMatchSpec, where: str) -> None:
        self._name = spec.name.encode()
        self._value = spec.value.encode()
        self._pattern = compile_pattern(spec.value, where) if spec.type == "regex" else None

    def _accepts(self, value: bytes | None) -> bool:
        if value is None:
            return False
        if self._pattern is None:
            return value == self._value
        return self._pattern.fullmatch(value) is not None


class HeaderMatch(_ValueMatch):
    """
    A header's value; of a repeated header, all values, joined with commas (RFC 9110 section 5.3).

    Host is not among a head's fields: a match on it looks at the authority.
    """

    __slots__ = ()

    def __init__(self, spec: ValueMatchSpec, where: str) -> None:
        super().__init__(spec, where)
        self._name = self._name.lower()

    def holds(self, head: RequestHead) -> bool:
        if self._name == b"host":
            return self._accepts(head.authority)
        return self._accepts(value_of(head.fields, self._name))


class QueryMatch(_ValueMatch):
    """
    A query parameter's value, decoded; of a repeated one the first, as the Gateway API recommends.
    """

    __slots__ = ()

    def holds(self, head: RequestHead) -> bool:
        for pair in head.path.partition(b"?")[2].split(b"&"):
            name, _, value = pair.partition(b"=")
            if _decoded(name) == self._name:
                return self._accepts(_decoded(value))
        return False


def _decoded(text: bytes) -> bytes | None:
    """Undo form encoding; None where it is broken, so that it equals nothing."""
    if b"%" not in text and b"+" not in text:
        return text
    if _BROKEN_ESCAPE.search(text):
        return None
    return unquote_to_bytes(text.replace(b"+", b" "))


class IdentityMatch:
    """
    Who calls, as mutual TLS has proved it; of nobody that was proved, only the empty match holds.

    Attributes:
        anybody: Nothing is asked of the caller.
    """

    __slots__ = ("_exact", "_prefixes", "anybody")

    def __init__(self, spec: IdentityMatchSpec) -> None:
        principals = spec.principals
        self.anybody = not principals
        self._exact = frozenset(name for name in principals if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in principals if name.endswith("*"))

    def holds(self, identity: str | None) -> bool:
        """Say whether `identity` is one of those that are meant; None or empty where none is proved."""
        if self.anybody:
            return True
        if not identity:
            return False
        return identity in self._exact or identity.startswith(self._prefixes)


def compile_pattern(pattern: str, where: str) -> Any:
    """
    Compile a regular expression; its `fullmatch` takes bytes and sees them as UTF-8.

    Raises:
        ContractError: RE2 does not accept it; it has, for instance, no look-around.
    """
    import re2

    options = re2.Options()
    options.log_errors = False  # else RE2 writes to standard error by itself
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ContractError(where, f"not a regular expression that RE2 accepts: {text}") from None

"""
Specs to JSON and back: strict, deterministic, with errors that say where.

The same content always gives the same bytes, so a hash of the bytes is a version: nothing that
did not change is ever sent, and two control planes that read the same source agree.
"""

import hashlib
import re
from typing import Any, TypeVar

import msgspec

from .resources import SECTIONS, Resource, Snapshot, name_of

T = TypeVar("T")

_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>.*)`$")
_encoder = msgspec.json.Encoder(order="deterministic")


class ContractError(ValueError):
    """
    Something that was said does not fit the contract.

    Attributes:
        path: Where, such as ``routes[2].match.path``; empty for the whole.
        reason: What is wrong and what was expected.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


def encode(value: Any) -> bytes:
    """Return `value` as JSON; equal values give equal bytes."""
    try:
        return _encoder.encode(value)
    except TypeError:
        # Only text can be put in order; keys that are numbers (ports, say) become text here.
        return _encoder.encode(msgspec.to_builtins(value, str_keys=True))


def decode(data: bytes | str, kind: type[T]) -> T:
    """
    Read JSON as `kind`.

    Raises:
        ContractError: It is not JSON, or not what `kind` asks for; says where and why.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise located(error) from None


def convert(data: Any, kind: type[T]) -> T:
    """
    Read plain dicts and lists (parsed YAML, say) as `kind`.

    Raises:
        ContractError: As for `decode`.
    """
    try:
        return msgspec.convert(data, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise located(error) from None


def located(error: Exception) -> ContractError:
    """Return an error of msgspec as ours: with the path apart from the reason."""
    text = str(error)
    where = _WHERE.search(text)
    if where is None:
        return ContractError("", text)
    return ContractError(where["path"], text[: where.start()])


def digest(data: bytes) -> str:
    """Return the content hash that serves as a version: 16 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def resource_version(resource: Resource) -> str:
    """Return the version of one resource."""
    return digest(encode(resource))


def version_of(snapshot: Snapshot) -> str:
    """Return the version of a whole snapshot; its own `version` field does not count."""
    parts = [
        f"{kind}/{name_of(resource)}={resource_version(resource)}"
        for kind, section in SECTIONS.items()
        for resource in sorted(getattr(snapshot, section), key=name_of)
    ]
    return digest("\n".join(parts).encode())

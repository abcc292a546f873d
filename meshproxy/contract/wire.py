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
_UNKNOWN = re.compile(r"(?:Object contains unknown field `|Invalid enum value '?)(?P<name>[^`']*)")
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
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
        raise located(error, kind) from None


def convert(data: Any, kind: type[T]) -> T:
    """
    Read plain dicts and lists (parsed YAML, say) as `kind`.

    Raises:
        ContractError: As for `decode`.
    """
    try:
        return msgspec.convert(data, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise located(error, kind) from None


def located(error: Exception, kind: Any = None) -> ContractError:
    """
    Return an error of msgspec as ours: with the path apart from the reason.

    Args:
        error: What msgspec said.
        kind: What was asked for: a name that it does not know is then told what it does.
    """
    text = str(error)
    where = _WHERE.search(text)
    path, reason = ("", text) if where is None else (where["path"], text[: where.start()])
    if kind is not None and (unknown := _UNKNOWN.match(reason)):
        reason += _alternatives(unknown["name"], _names(kind, path))
    return ContractError(path, reason)


def _alternatives(name: str, known: list[str]) -> str:
    import difflib  # only here: a sidecar without errors need not hold it in memory

    if near := difflib.get_close_matches(name, known, n=1):
        return f", did you mean `{near[0]}`?"
    return f", expected one of {', '.join(known)}" if known else ""


def _names(kind: Any, path: str) -> list[str]:
    """Return the fields, or the values of an enumeration, that `kind` has at `path`."""
    from msgspec import inspect

    info = inspect.type_info(kind)
    for step in ["", *_STEP.findall(path)]:
        match info:
            case _ if not step:
                pass
            case inspect.StructType():
                fields = {field.encode_name: field.type for field in info.fields}
                info = fields.get(step, inspect.AnyType())
            case inspect.VarTupleType() | inspect.ListType():
                info = info.item_type
            case inspect.DictType():
                info = info.value_type
            case _:
                return []
        if isinstance(
            info, inspect.UnionType
        ):  # X | None; of several, nobody knows which was meant
            meant = [one for one in info.types if not isinstance(one, inspect.NoneType)]
            info = meant[0] if len(meant) == 1 else inspect.AnyType()
    match info:
        case inspect.StructType():
            return [field.encode_name for field in info.fields]
        case inspect.LiteralType():
            return [str(value) for value in info.values]
        case _:
            return []


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

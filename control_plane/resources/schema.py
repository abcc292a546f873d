"""
A tree against a model: every mismatch, with its line and what was expected.

`msgspec.convert` would do the same check but stops at the first mismatch and knows no lines.  This
walker asks the same type information (`msgspec.inspect`), so a model is written down once; what it
lets through, `convert` turns into the model, and would still refuse.

As in a cluster, ``null`` is the same as leaving a field out.
"""

import functools
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from . import duration
from .document import Mapping, Node, Scalar, Sequence, described
from .finding import Path
from .meant import nearest_field
from .model import IGNORED

Report = Callable[[Path, int, str], None]
"""Called with the path, the line and the message of each mismatch."""


_MISSING: Any = object()
_type_info = functools.cache(inspect.type_info)


def walk(node: Node, model: type[msgspec.Struct], report: Report) -> Any:
    """
    Return `node` as plain data for `msgspec.convert`, without what does not fit; that is reported.
    """
    return _walk(node, _type_info(model), (), report)


def _walk(node: Node, info: inspect.Type, path: Path, report: Report) -> Any:
    if isinstance(info, inspect.UnionType):
        return _union(node, info, path, report)
    if isinstance(info, inspect.StructType):
        return _struct(node, info, path, report)
    if isinstance(info, inspect.VarTupleType):
        return _list(node, info, path, report)
    if isinstance(info, inspect.DictType):
        return _dict(node, info, path, report)
    if isinstance(info, inspect.Metadata):
        return _annotated(node, info, path, report)
    if isinstance(node, Scalar) and _fits(node.value, info):
        return node.value
    said = _out_of_bounds(node, info) or _said(node)
    report(path, node.line, f"{said}, expected {expected(info)}{_advice(node, info)}")
    return _MISSING


def _annotated(node: Node, info: inspect.Metadata, path: Path, report: Report) -> Any:
    """A text with a grammar: of those, durations are in so many kinds that they are read here."""
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        report(path, node.line, f"{_said(node)}, {duration.EXPECTED}{_unit_advice(node)}")
        return _MISSING
    if wrong := duration.problem(node.value, (info.extra or {})["duration"]):
        report(path, node.line, wrong)
        return _MISSING
    return node.value


def _struct(node: Node, info: inspect.StructType, path: Path, report: Report) -> Any:
    if not isinstance(node, Mapping):
        report(path, node.line, f"{_said(node)}, expected {expected(info)}")
        return _MISSING
    fields = {field.encode_name: field for field in info.fields}
    ignored = IGNORED.get(info.cls, frozenset())
    data: dict[str, Any] = {}
    for key, child in node.items.items():
        if key in ignored:
            continue
        field = fields.get(key)
        if field is None:
            report((*path, key), node.key_lines[key], f"unknown field, {nearest_field(key, info)}")
        elif _is_null(child) and not field.required:
            continue
        else:
            value = _walk(child, field.type, (*path, key), report)
            if value is not _MISSING:
                data[key] = value
    for name, field in fields.items():
        if field.required and name not in node.items:
            report((*path, name), node.line, f"is missing, expected {expected(field.type)}")
    return data


def _list(node: Node, info: inspect.VarTupleType, path: Path, report: Report) -> Any:
    if not isinstance(node, Sequence):
        report(path, node.line, f"{_said(node)}, expected {expected(info)}")
        return _MISSING
    items = [
        _walk(item, info.item_type, (*path, index), report) for index, item in enumerate(node.items)
    ]
    return _MISSING if _MISSING in items else items  # the rest would move to other indexes


def _dict(node: Node, info: inspect.DictType, path: Path, report: Report) -> Any:
    if not isinstance(node, Mapping):
        report(path, node.line, f"{_said(node)}, expected {expected(info)}")
        return _MISSING
    table = {
        key: _walk(child, info.value_type, (*path, key), report)
        for key, child in node.items.items()
    }
    return {key: value for key, value in table.items() if value is not _MISSING}


def _union(node: Node, info: inspect.UnionType, path: Path, report: Report) -> Any:
    choices = [one for one in info.types if not isinstance(one, inspect.NoneType)]
    if len(choices) < len(info.types) and _is_null(node):
        return None
    if len(choices) == 1:
        return _walk(node, choices[0], path, report)
    if isinstance(node, Scalar) and any(_fits(node.value, one) for one in choices):
        return node.value
    report(path, node.line, f"{_said(node)}, expected {expected(info)}")
    return _MISSING


def _fits(value: Any, info: inspect.Type) -> bool:
    match info:
        case inspect.LiteralType():
            return any(type(value) is type(one) and value == one for one in info.values)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return (
                isinstance(value, int)
                and not isinstance(value, bool)
                and (info.ge is None or value >= info.ge)
                and (info.le is None or value <= info.le)
            )
        case inspect.FloatType():
            return (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and (info.ge is None or value >= info.ge)
                and (info.le is None or value <= info.le)
                and (info.gt is None or value > info.gt)
                and (info.lt is None or value < info.lt)
            )
        case _:
            raise TypeError(f"no rule for {info}")


def expected(info: inspect.Type) -> str:
    """Return what a field wants, for the second half of the sentence."""
    match info:
        case inspect.UnionType():
            kinds = [one for one in info.types if not isinstance(one, inspect.NoneType)]
            return " or ".join(expected(one) for one in kinds)
        case inspect.LiteralType():
            values = [str(value) or '""' for value in info.values]
            return values[0] if len(values) == 1 else f"one of {', '.join(sorted(values))}"
        case inspect.StrType():
            return "a string"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return _expected_number(info)
        case inspect.Metadata():
            return "a duration"
        case inspect.VarTupleType():
            return "a list"
        case inspect.StructType():
            names = ", ".join(field.encode_name for field in info.fields)
            return f"a mapping with {names}"
        case _:
            return "a mapping"


def _expected_number(info: inspect.IntType | inspect.FloatType) -> str:
    kind = "an integer" if isinstance(info, inspect.IntType) else "a number"
    if info.ge is not None and info.le is not None:
        return f"{kind} {info.ge} to {info.le}"
    if info.gt is not None and info.lt is not None:
        return f"{kind} above {info.gt} and below {info.lt}"
    return kind if info.ge is None else f"{kind} of at least {info.ge}"


def _said(node: Node) -> str:
    if not isinstance(node, Scalar) or node.value is None:
        return f"is {described(node)}"
    return f"{_shown(node.text)} is {described(node)}"


def _shown(text: str) -> str:
    return _quoted(text if len(text) <= 60 else f"{text[:57]}...")


def _out_of_bounds(node: Node, info: inspect.Type) -> str:
    """Where the type is right and only the value is not, "is an integer" would mislead."""
    if not isinstance(node, Scalar) or isinstance(node.value, bool):
        return ""
    if isinstance(info, inspect.IntType) and isinstance(node.value, int):
        return f"{node.text} is out of range"
    if isinstance(info, inspect.FloatType) and isinstance(node.value, int | float):
        return f"{node.text} is out of range"
    if isinstance(info, inspect.LiteralType) and isinstance(node.value, type(info.values[0])):
        text = node.text if isinstance(node.value, int) else _shown(node.text)
        return f"{text} is not known"
    return ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


def _advice(node: Node, info: inspect.Type) -> str:
    """A bare ``on`` or ``1.0`` where text is wanted: say how to write it."""
    wants_text = isinstance(info, inspect.StrType) or (
        isinstance(info, inspect.LiteralType) and all(isinstance(v, str) for v in info.values)
    )
    if wants_text and isinstance(node, Scalar) and isinstance(node.value, bool | int | float):
        return f": write it in quotes, {_quoted(node.text)}"
    return ""


def _unit_advice(node: Node) -> str:
    """A bare ``5`` where a duration is wanted: quotes alone would not mend it, a unit does."""
    if (
        isinstance(node, Scalar)
        and isinstance(node.value, int)
        and not isinstance(node.value, bool)
    ):
        return f": say the unit, {node.text}s or {node.text}ms"
    return ""


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None

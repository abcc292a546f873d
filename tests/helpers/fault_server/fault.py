"""
What a request asks to go wrong with it: the words of `x-fault`, separated by spaces.

What to answer, instead of a good answer:

    status=503         another status
    grpc=14            another gRPC status, in the trailers
    only               all of a gRPC answer in its head ("Trailers-Only")
    retry-after=2      with this field
    size=100           bytes of body
    framing=length     how the body is delimited: `length`, `chunked`, `close`, or `lie` for chunks
                       that are shorter than they say
    length=+5          what Content-Length says beyond the truth (`-5`: below it)

    late=50            milliseconds after it could have been

Where to leave the path of virtue, and how:

    at=POINT           `request` (its head has been read) or `request+N` (N bytes of its body);
                       `head`, `body`, `end` of the answer, before which it happens, or N bytes in
    do=ACTION          `reset` (TCP: RST), `close` (FIN), `stall` (not another byte), `garbage`
                       (what is no HTTP, then FIN); `rst:CODE` (HTTP/2: RST_STREAM);
                       `goaway` (HTTP/2: it covers this stream no more), `leave` (it still does)
    pace=2             from `at` on, a byte every so many milliseconds

When:

    first=2            the first so many times
    every=3            each third time
    share=0.3 seed=1   this share of the times, by a generator with this seed
    key=NAME           "times" are those of this key; without it, those of the request's id
    reused             only on a connection that has served before
    twin               only at the second endpoint

    executes           the work is done as soon as the fault strikes, however little was read
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Where = Literal["request", "head", "body", "end"]
Action = Literal["reset", "close", "stall", "garbage", "rst", "goaway", "leave"]
Framing = Literal["length", "chunked", "close", "lie"]

_POINT = re.compile(r"(request|head|body|end)(?:\+(\d+))?")
_SIGNED = re.compile(r"[+-]\d+")


class FaultError(ValueError):
    """`x-fault` says what nobody understands."""


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        code: Of an RST_STREAM.
        after: Bytes behind the point `at`.
    """

    status: int = 200
    grpc: int = 0
    only: bool = False
    retry_after: str = ""
    size: int = 100
    framing: Framing = "length"
    length: int = 0
    at: Where | None = None
    after: int = 0
    do: Action | None = None
    code: int = 0
    pace: float = 0.0
    late: float = 0.0
    first: int = 0
    every: int = 0
    share: float = 1.0
    seed: int = 0
    key: str = ""
    reused: bool = False
    twin: bool = False
    executes: bool = False


NONE = Fault()


def read(text: str) -> Fault:
    """
    Return what the words say.

    Raises:
        FaultError: One of them says nothing.
    """
    found: dict[str, object] = {}
    for word in text.split():
        name, given, value = word.partition("=")
        try:
            found |= _one(name, value) if given else _flag(name)
        except (ValueError, KeyError):
            raise FaultError(f"x-fault: {word!r} is not understood") from None
    fault = Fault(**found)  # type: ignore[arg-type]  # each value was made for its name
    paced = fault.pace and fault.at not in (None, "request")
    if (fault.do is None) != (fault.at is None) and not paced:
        raise FaultError(f"x-fault: {text!r} does not say both, where and what")
    return fault


def _flag(name: str) -> dict[str, object]:
    if name not in ("only", "reused", "executes", "twin"):
        raise ValueError(name)
    return {name: True}


def _one(name: str, value: str) -> dict[str, object]:
    return _VALUES[name](value)


def _at(value: str) -> dict[str, object]:
    point = _POINT.fullmatch(value)
    if point is None:
        raise ValueError(value)
    return {"at": point[1], "after": int(point[2] or 0)}


def _do(value: str) -> dict[str, object]:
    action, _, code = value.partition(":")
    if action not in get_args(Action) or bool(code) != (action == "rst"):
        raise ValueError(value)
    return {"do": action, "code": int(code or 0)}


def _framing(value: str) -> dict[str, object]:
    if value not in get_args(Framing):
        raise ValueError(value)
    return {"framing": value}


def _length(value: str) -> dict[str, object]:
    if _SIGNED.fullmatch(value) is None:
        raise ValueError(value)
    return {"length": int(value)}


def _number(name: str) -> Callable[[str], dict[str, object]]:
    return lambda value: {name: int(value)}


_VALUES: dict[str, Callable[[str], dict[str, object]]] = {
    "at": _at,
    "do": _do,
    "framing": _framing,
    "length": _length,
    "retry-after": lambda value: {"retry_after": value},
    "key": lambda value: {"key": value},
    "share": lambda value: {"share": float(value)},
    "pace": lambda value: {"pace": float(value) / 1000},
    "late": lambda value: {"late": float(value) / 1000},
    **{name: _number(name) for name in ("status", "grpc", "size", "first", "every", "seed")},
}

"""
What was probably meant by a word that nobody knows.

A field that is unknown where it stands is often a good one a level too high: `spec.requests` of a
RateLimitPolicy is `rules[].requests`, `from[].principals` is `source.principals`.  So the fields
below are looked through as well, and the whole way is named.
"""

import difflib
import functools
from collections.abc import Iterable, Iterator

from msgspec import Struct, inspect

LONGEST = 100
"""Characters of what may be a known word, misspelt: to compare takes time."""
DEEPEST = 3
MOST = 3
SLIP, CLOSE = 0.85, 0.8
"""How alike two words are of which one is a slip of the other (``timeout``), or nearly (`difflib`)."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a clause that names what was probably meant, or lists what there is."""
    known, word = sorted(known), word[:LONGEST]
    found = _same(word, known) or next(iter(_alike(word, known)), None)
    if found:
        return f'did you mean "{found}"?'
    return f"expected one of {', '.join(known)}"


def nearest_field(word: str, info: inspect.StructType) -> str:
    """The same for a field: those below count, too, where they have that very name or nearly so."""
    names, word = [field.encode_name for field in info.fields], word[:LONGEST]
    if _same(word, names):
        return nearest(word, names)
    below = _ways_below(info.cls)
    ways = _alike(word, names, SLIP) + [way for way in below if _name(way) == word.lower()]
    if not ways and not _alike(word, names):
        close = _alike(word.lower(), {_name(way) for way in below}, CLOSE)
        ways = [next(way for way in below if _name(way) == name) for name in close]
    if ways:
        return "did you mean " + " or ".join(f'"{way}"' for way in ways[:MOST]) + "?"
    return nearest(word, names)


def _same(word: str, known: Iterable[str]) -> str | None:
    return next((name for name in known if name.lower() == word.lower()), None)


def _alike(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    return difflib.get_close_matches(word, sorted(known), n=MOST, cutoff=cutoff)


def _name(way: str) -> str:
    return way.rpartition(".")[2].lower()


@functools.cache
def _ways_below(model: type[Struct]) -> tuple[str, ...]:
    """Return the ways to all fields below those of a model, the shortest first."""
    info = inspect.type_info(model)
    assert isinstance(info, inspect.StructType)
    return tuple(sorted(_below(info, DEEPEST), key=lambda way: (way.count("."), way)))


def _below(info: inspect.StructType, levels: int) -> Iterator[str]:
    """Yield the ways to the fields below those of a structure: ``rules[].match.path``."""
    for field in info.fields:
        inner, way = _structure(field.type, field.encode_name)
        if inner is None or levels == 0:
            continue
        for one in inner.fields:
            yield f"{way}.{one.encode_name}"
        for deeper in _below(inner, levels - 1):
            yield f"{way}.{deeper}"


def _structure(info: inspect.Type, way: str) -> tuple[inspect.StructType | None, str]:
    """Return what a field holds, if that has fields, and how the way there is written."""
    if isinstance(info, inspect.StructType):
        return info, way
    if isinstance(info, inspect.VarTupleType):
        return _structure(info.item_type, f"{way}[]")
    if isinstance(info, inspect.UnionType):
        for one in info.types:
            found = _structure(one, way)
            if found[0] is not None:
                return found
    return None, way

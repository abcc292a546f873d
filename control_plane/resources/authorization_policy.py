"""
What types cannot say about an AuthorizationPolicy.

Patterns and templates are read by the proxy's own code, so that nothing passes here that a proxy
would refuse, or take for something else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from string import punctuation
from typing import Final
from urllib.parse import quote

from meshproxy.contract.wire import ContractError
from meshproxy.routing.authority import normalized
from meshproxy.routing.pattern import Patterns
from meshproxy.routing.readings import readings
from meshproxy.routing.template import Paths

from . import syntax
from .finding import Path
from .route import MAX_ITEMS, Problems, at_most
from .security import (
    AuthorizationPolicy,
    AuthorizationRule,
    Condition,
    GRPCOperation,
    Operation,
    Source,
)
from .selector import problems_of_selector

KEY: Final = re.compile(r"request\.headers\[([^\[\]]+)\]|request\.auth\.claims((?:\[[^\[\]]+\])+)")
CLAIM: Final = re.compile(r"\[([^\[\]]+)\]")
_SPIFFE: Final = "spiffe://"
_AS_SENT: Final = punctuation
"""What a client leaves as it is; others, such as a blank or an umlaut, it escapes."""


def problems_of_policy(policy: AuthorizationPolicy) -> Problems:
    """Yield what is wrong with a policy, whatever it selects."""
    yield from problems_of_selector(policy.spec.selector)
    path: Path = ("spec", "rules")
    yield from at_most(path, policy.spec.rules, 4 * MAX_ITEMS)
    names: dict[str, int] = {}
    for number, rule in enumerate(policy.spec.rules):
        here = (*path, number)
        if rule.name is not None and names.setdefault(rule.name, number) != number:
            yield (
                (*here, "name"),
                f'"{rule.name}" is also the name of rules[{names[rule.name]}]',
            )
        yield from _rule(here, rule)


def principal(text: str) -> str:
    """Return a principal as the contract has it; Istio's users leave out the scheme."""
    return text if text.startswith(("*", _SPIFFE)) else f"{_SPIFFE}{text}"


def _rule(path: Path, rule: AuthorizationRule) -> Problems:
    for index, one in enumerate(rule.sources):
        yield from _source((*path, "from", index, "source"), one.source)
    for index, to in enumerate(rule.to):
        yield from _operation((*path, "to", index, "operation"), to.operation)
    for index, condition in enumerate(rule.when):
        yield from _condition((*path, "when", index), condition)


def _source(path: Path, source: Source) -> Problems:
    for name, texts in _fields(source):
        if name in ("ipBlocks", "notIpBlocks"):
            for index, text in enumerate(texts):
                try:
                    ip_network(text)
                except ValueError as error:
                    message = f'"{text}" is not such as 10.0.0.0/8 or 10.1.2.3: {error}'
                    yield (*path, name, index), message
        else:
            yield from _patterns((*path, name), texts)
    if not any(texts for _, texts in _fields(source)):
        yield path, "is empty, expected who is meant; leave `from` out to mean everybody"


def _operation(path: Path, operation: Operation) -> Problems:
    for name, texts in _fields(operation):
        yield from _READERS[name]((*path, name), texts)
    for index, call in enumerate(operation.grpc):
        yield from _call((*path, "grpc", index), call)
    if operation.grpc and (operation.paths or operation.methods):
        other = "paths" if operation.paths else "methods"
        yield (*path, other), "cannot stand beside grpc, which is a path and the method POST"
    if not (any(texts for _, texts in _fields(operation)) or operation.grpc or _ports(operation)):
        yield path, "is empty, expected what is meant; leave `to` out to mean everything"


def _methods(path: Path, texts: Sequence[str]) -> Problems:
    yield from _patterns(path, texts)
    for index, text in enumerate(texts):
        if text != text.upper():
            # RFC 9110 section 9.1: methods are case-sensitive; a rule about "get" is about nothing.
            yield (*path, index), f'"{text}" is in lower case, expected "{text.upper()}"'


def _hosts(path: Path, texts: Sequence[str]) -> Problems:
    yield from _patterns(path, texts)
    for index, text in enumerate(texts):
        # A star stands for anything; "1" can be part of a name, of an address and of a port.
        if "/" in text or (text and normalized(text.replace("*", "1").encode()) is None):
            expected = "expected such as shop.example, *.shop.example or shop.example:8080"
            yield (*path, index), f'"{text}" is no host, {expected}'


def _paths(path: Path, texts: Sequence[str]) -> Problems:
    wrong = list(_patterns(path, texts, Paths))
    for index, text in enumerate(texts):
        if "?" in text or "#" in text:
            wrong.append(
                ((*path, index), f'"{text}" is more than a path: queries are not compared')
            )
    yield from wrong
    if wrong:
        return
    named = Paths(texts)
    for index, text in enumerate(texts):
        # A rule that allows wants all readings of a request's path to be named: it would be dead.
        if not text.startswith("/"):
            continue
        for other in (*(readings(text.encode()) or ()), quote(text, safe=_AS_SENT).encode()):
            if not named.match(other):
                also = other.decode(errors="replace")
                message = f'"{text}" can also be read as "{also}", expected that beside it'
                yield (*path, index), message


def _call(path: Path, call: GRPCOperation) -> Problems:
    if call.service == call.method == "*":
        yield path, "is empty, expected a service, a method or both"
    for name, text in (("service", call.service), ("method", call.method)):
        if "*" in text[:-1] or "/" in text or not text:
            yield (*path, name), f'"{text}" is no {name} of gRPC, expected a name, or * at its end'
    if call.service != "*" and call.service.endswith("*") and call.method != "*":
        message = "cannot stand beside a service that ends in *, expected one of both whole"
        yield (*path, "method"), message
    if call.method != "*" and call.method.endswith("*") and call.service == "*":
        yield (*path, "method"), "cannot end in * without a service"


def _condition(path: Path, condition: Condition) -> Problems:
    found = KEY.fullmatch(condition.key)
    if found is None:
        message = (
            f'"{condition.key}" is not known, expected request.headers[name] '
            "or request.auth.claims[name]"
        )
        yield (*path, "key"), message
    elif found[1] is not None and (wrong := syntax.header_name(found[1])):
        yield (*path, "key"), wrong
    if not condition.values and not condition.not_values:
        yield path, "has neither values nor notValues, expected one of them"
    yield from _patterns((*path, "values"), condition.values)
    yield from _patterns((*path, "notValues"), condition.not_values)


def _patterns(path: Path, texts: Sequence[str], read: Callable[..., object] = Patterns) -> Problems:
    for index, text in enumerate(texts):
        try:
            read((text,))
        except ContractError as error:
            yield (*path, index), error.reason


_READERS: Final[Mapping[str, Callable[[Path, Sequence[str]], Problems]]] = {
    "hosts": _hosts,
    "notHosts": _hosts,
    "methods": _methods,
    "notMethods": _methods,
    "paths": _paths,
    "notPaths": _paths,
}


def _fields(model: Source | Operation) -> list[tuple[str, tuple[str, ...]]]:
    """Return the lists of texts in a model, by their names in YAML."""
    return [
        (_camel(name), getattr(model, name))
        for name in model.__struct_fields__
        if name not in ("ports", "not_ports", "grpc")
    ]


def _ports(operation: Operation) -> bool:
    return bool(operation.ports or operation.not_ports)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)

"""What types cannot say about a RequestAuthentication."""

from urllib.parse import urlsplit

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.wire import ContractError
from meshproxy.policies.jwt import Jwt
from meshproxy.routing import writable

from . import syntax
from .finding import Path
from .route import MAX_ITEMS, Problems, at_most
from .security import JWTRule, RequestAuthentication
from .selector import problems_of_selector


def problems_of_policy(policy: RequestAuthentication) -> Problems:
    """Yield what is wrong with a policy, whatever it selects."""
    yield from problems_of_selector(policy.spec.selector)
    path: Path = ("spec", "jwtRules")
    rules = policy.spec.jwt_rules
    if not rules:
        yield path, "is empty, expected at least one issuer"
    yield from at_most(path, rules, MAX_ITEMS)
    issuers: dict[str, int] = {}
    for index, rule in enumerate(rules):
        first = issuers.setdefault(rule.issuer, index)
        if first != index:
            yield (*path, index, "issuer"), f'"{rule.issuer}" is also that of jwtRules[{first}]'
        yield from _rule((*path, index), rule)


def _rule(path: Path, rule: JWTRule) -> Problems:
    if not rule.issuer:
        yield (*path, "issuer"), "is empty, expected the `iss` of its tokens"
    given = {"jwks": rule.jwks, "jwksFile": rule.jwks_file, "jwksUri": rule.jwks_uri}
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        what = " and ".join(said) or "none of them"
        yield path, f"has {what}, expected one of jwks, jwksFile, jwksUri"
    if rule.jwks is not None and (wrong := problem_of_key_set(rule.jwks)):
        yield (*path, "jwks"), wrong
    if rule.jwks_uri is not None and (wrong := _problem_of_address(rule.jwks_uri)):
        yield (*path, "jwksUri"), wrong
    for index, header in enumerate(rule.from_headers):
        if wrong := syntax.header_name(header.name):
            yield (*path, "fromHeaders", index, "name"), wrong
    for index, told in enumerate(rule.output_claim_to_headers):
        here = (*path, "outputClaimToHeaders", index)
        if wrong := syntax.header_name(told.header) or writable.wrong_name(told.header):
            yield (*here, "header"), wrong
        if not told.claim:
            yield (*here, "claim"), "is empty, expected the name of a claim"


def problem_of_key_set(text: str) -> str | None:
    """Return why a proxy would not take this for an issuer's keys."""
    try:
        Jwt((JwtSpec(name="-", issuer="-", keys=text),))
    except ContractError as error:
        place = error.path.removeprefix("[0].keys").strip()
        return f"{place} {error.reason}".strip()
    return None


def _problem_of_address(text: str) -> str | None:
    """Return what is wrong with a jwksUri; which hosts it may name, the MeshConfig says."""
    expected = "expected such as https://id.example/keys.json"
    try:
        found = urlsplit(text)
        port = found.port
    except ValueError as error:
        return f'"{text}" is no URL: {error}, {expected}'
    if found.scheme not in ("https", "http") or not found.hostname or port == 0:
        return f'"{text}" is no URL of the web, {expected}'
    if found.scheme == "http" and found.hostname not in ("127.0.0.1", "localhost", "::1"):
        return f'"{text}" is not encrypted: who is between could be any issuer, {expected}'
    if found.username is not None or found.fragment:
        return f'"{text}" has a user or a fragment, {expected}'
    return None

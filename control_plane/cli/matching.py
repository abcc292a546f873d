"""Conditions on requests in one line, in the words of the Gateway API."""

from meshproxy.contract.matching import MatchSpec

PATH_TYPES = {"exact": "Exact", "prefix": "PathPrefix", "regex": "RegularExpression"}


def described(match: MatchSpec) -> str:
    """
    Return the conditions of a match in one line, in the words of the Gateway API.

    Without any it is ``PathPrefix /``, as there: "If no matches are specified, the default is a
    prefix path match on "/", which has the effect of matching every HTTP request."
    """
    parts = [match.method] if match.method else []
    if match.grpc:
        parts.append("gRPC")
    if match.path is not None:
        parts.append(f"{PATH_TYPES[match.path.type]} {match.path.value}")
    for what, conditions in (("header", match.headers), ("query", match.query)):
        parts.extend(
            f"{what} {one.name}{'~' if one.type == 'regex' else '='}{one.value}"
            for one in conditions
        )
    return ", ".join(parts) or "PathPrefix /"

"""
The text of one file to its resources: strict, and with every finding, not only the first.

A file is taken whole or not at all, so what is found wrong in one document does not stop the
reading of the next.
"""

from typing import Any, Literal

import msgspec

from . import document, schema
from .document import Mapping, Node, Scalar
from .finding import MOST, Finding, Path, dotted
from .meant import nearest
from .model import KINDS, Resource

NOT_YET = frozenset(
    {
        "BackendTLSPolicy",
        "Gateway",
        "GatewayClass",
        "ListenerSet",
        "UDPRoute",
    }
)
"""Kinds of the Gateway API that this version does not have; said so instead of "unknown"."""


_LONGEST_NAME = 512
"""Characters of a name, or what stands in its place, that findings repeat."""


class _EnoughError(Exception):
    """More is wrong with a file than anybody wants to be told."""


class Source(msgspec.Struct, frozen=True):
    """
    One resource and where it stands.

    Attributes:
        node: Its tree, for the lines of its fields.
    """

    resource: Resource
    file: str
    node: Node

    @property
    def key(self) -> str:
        """``Kind/namespace/name``: what must be unique in a mesh."""
        return f"{self.resource.kind}/{self.name}"

    @property
    def name(self) -> str:
        metadata = self.resource.metadata
        return f"{metadata.namespace}/{metadata.name}"

    @property
    def line(self) -> int:
        return self.node.line

    def finding(
        self, path: Path, message: str, severity: Literal["error", "unresolved"] = "error"
    ) -> Finding:
        """Return a finding about the field at `path`."""
        return Finding(
            file=self.file,
            line=document.line_of(self.node, path),
            kind=self.resource.kind,
            name=self.name[:_LONGEST_NAME],
            field=dotted(path),
            message=message,
            severity=severity,
        )


def parse(text: str, file: str) -> tuple[list[Source], list[Finding]]:
    """
    Return the resources of one file, and what is wrong with the text and the types in it.

    Also of a resource with findings, what does fit is returned where it can be, so that the checks
    that follow can say all that is wrong at once.
    """
    sources: list[Source] = []
    findings: list[Finding] = []
    try:
        for node in document.read(text):
            _one(node, file, sources, findings)
            if len(findings) >= MOST:
                raise _EnoughError
    except document.DocumentError as error:
        findings.append(Finding(file=file, line=error.line, message=error.message))
    except _EnoughError:
        message = f"has {MOST} findings so far; what else is wrong was not looked for"
        findings.append(Finding(file=file, message=message))
    return sources, findings


def _one(node: Node, file: str, sources: list[Source], findings: list[Finding]) -> None:
    if not isinstance(node, Mapping):
        message = f"the document is {document.described(node)}, expected a resource"
        findings.append(Finding(file=file, line=node.line, message=message))
        return
    model = _model(node, file, findings)
    if model is None:
        return
    before = len(findings)
    kind, name = _text(node, "kind"), _name(node)

    def report(path: Path, line: int, message: str) -> None:
        if len(findings) >= MOST:
            raise _EnoughError
        findings.append(
            Finding(file=file, line=line, kind=kind, name=name, field=dotted(path), message=message)
        )

    data = schema.walk(node, model, report)
    try:
        sources.append(Source(msgspec.convert(data, model), file, node))
    except msgspec.ValidationError as error:
        # Without what did not fit, too little is left.
        if len(findings) == before:
            report((), node.line, str(error))


def _model(node: Mapping, file: str, findings: list[Finding]) -> type[Resource] | None:
    """Return the model that `apiVersion` and `kind` name, or report why there is none."""
    kind, version = _text(node, "kind"), _text(node, "apiVersion")
    model: Any = KINDS.get((version, kind))
    if model is not None:
        return model  # type: ignore[no-any-return]
    name = _name(node)

    def report(field: str, message: str) -> None:
        line = document.line_of(node, (field,))
        finding = Finding(
            file=file, line=line, kind=kind, name=name, field=field, message=message
        )  # fmt: skip
        findings.append(finding)

    kinds: dict[str, list[str]] = {}  # with the versions that are read, the one to write first
    for known_version, known_kind in KINDS:
        kinds.setdefault(known_kind, []).append(known_version)
    if not kind:
        report("kind", f"is missing, expected one of {', '.join(sorted(kinds))}")
    elif kind == "ReferenceGrant":  # decision 0029
        message = "ReferenceGrant is not read: routes of a mesh lead to the Services of other "
        report("kind", f"{message}namespaces without one (GEP-1294), so leave it out")
    elif kind in NOT_YET:
        report("kind", f"{kind} is not supported yet, expected one of {', '.join(sorted(kinds))}")
    elif kind not in kinds:
        report(
            "kind",
            f'"{document.short(kind)}" is not a kind of resource, {nearest(kind, kinds)}',
        )
    elif not version:
        report("apiVersion", f"is missing, expected {kinds[kind][0]}")
    else:
        report(
            "apiVersion",
            f'"{document.short(version)}" is not read of a {kind}, expected {" or ".join(kinds[kind])}',
        )
    return None


def _text(node: Node, field: str) -> str:
    child = node.items.get(field) if isinstance(node, Mapping) else None
    if not isinstance(child, Scalar) or not isinstance(child.value, str):
        return ""
    return child.value[:_LONGEST_NAME]


def _name(node: Mapping) -> str:
    metadata = node.items.get("metadata")
    if metadata is None or not _text(metadata, "name"):
        return ""
    return f"{_text(metadata, 'namespace') or 'default'}/{_text(metadata, 'name')}"

import msgspec
import pytest

from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)


def test_policies_survive_the_wire() -> None:
    """With everything that a rule can ask."""
    spec = AuthorizationSpec(
        name="shop/readers",
        action="audit",
        rules=(
            AuthorizationRuleSpec(
                name="read",
                sources=(SourceSpec(principals=("spiffe://mesh.local/ns/shop/*",)),),
                operations=(OperationSpec(methods=("GET",), paths=("/a/{*}",)),),
                facts=(FactSpec(kind="claim", path=("realm", "roles"), values=("reader",)),),
            ),
        ),
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=AuthorizationSpec) == spec


@pytest.mark.parametrize("wrong", [{"action": "permit"}, {"name": ""}, {"rule": []}])
def test_unknown_actions_and_fields_are_refused(wrong: dict[str, object]) -> None:
    """An older proxy never takes for nothing what it does not know (CVE-2022-21679)."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "a/b", **wrong}, AuthorizationSpec)

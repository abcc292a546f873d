import msgspec
import pytest
from msgspec import inspect

from control_plane.resources import fields, gateway_api, model, policies


@pytest.mark.parametrize("module", [fields, gateway_api, model, policies])
def test_every_model_is_strict_and_frozen(module: object) -> None:
    """An unknown field is never read over, and nothing changes behind the store's back."""
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, fields.Model) and one is not fields.Model
    ]
    assert found
    for one in found:
        assert one.__struct_config__.frozen
        assert one.__struct_config__.forbid_unknown_fields


def test_a_duration_says_what_is_the_least() -> None:
    """Of `Duration` nothing, of `Period` a millisecond: `schema` asks for it."""

    class Both(msgspec.Struct):
        some: fields.Duration
        more: fields.Period

    info = inspect.type_info(Both)
    assert isinstance(info, inspect.StructType)
    assert [one.type.extra for one in info.fields if isinstance(one.type, inspect.Metadata)] == [
        {"duration": 0},
        {"duration": 1},
    ]

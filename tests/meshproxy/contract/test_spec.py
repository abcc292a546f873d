import msgspec
import pytest

from meshproxy.contract.spec import Milliseconds, Name, Percent, Port, Positive, Spec, Weight


class Example(Spec, frozen=True, kw_only=True):
    name: Name = "x"
    port: Port = 1
    weight: Weight = 0
    wait: Milliseconds = 0
    some: Positive = 1
    share: Percent = 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("port", 0), ("port", 65536), ("weight", -1), ("wait", -1), ("some", 0),
        ("share", 100.5), ("share", -1), ("prot", 80),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(field: str, value: object) -> None:
    """And so are unknown fields: nothing is guessed."""
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({field: value}, Example)


def test_defaults_are_not_written() -> None:
    """What nobody has set costs no bytes, and an older reader need not know it."""
    assert msgspec.json.encode(Example(port=7)) == b'{"port":7}'

import pytest

from control_plane.resources.quantity import bytes_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (65536, 65536),
        ("65536", 65536),
        ("64Ki", 65536),
        ("1Mi", 1 << 20),
        ("100k", 100_000),
    ],
)
def test_bytes(text: int | str, size: int) -> None:
    """Binary and decimal units are those of Kubernetes."""
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "-1", -1, "1.5Mi", "64KB", "64 Ki", "Ki", "٣"])
def test_refused(text: int | str) -> None:
    """What it is, and how to write one."""
    with pytest.raises(
        ValueError, match=r"is not a number of bytes, expected .* such as 65536, 64Ki"
    ):
        bytes_of(text)

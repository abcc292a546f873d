import pytest

from meshproxy.contract.wire import ContractError
from meshproxy.routing.template import Paths


@pytest.mark.parametrize(
    ("template", "yes", "no"),
    [
        ("/users/{*}", ["/users/7", "/users/a.b"], ["/users", "/users/", "/users/7/x", "/user/7"]),
        ("/users/{id}/orders", ["/users/7/orders"], ["/users//orders", "/users/7/8/orders"]),
        ("/files/{**}", ["/files", "/files/", "/files/a/b"], ["/filesx", "/file"]),
        ("/a.b/{*}", ["/a.b/c"], ["/axb/c"]),
        ("/api/*", ["/api/", "/api/x/y"], ["/api"]),
        ("*.jpg", ["/a/b.jpg"], ["/a/b.jpgx"]),
        ("/exact", ["/exact"], ["/exact/", "/exac"]),
    ],
)
def test_templates(template: str, yes: list[str], no: list[str]) -> None:
    """One segment, any rest, or the text as it stands."""
    paths = Paths(("/never", template))
    assert all(paths.match(path.encode()) for path in yes)
    assert not any(paths.match(path.encode()) for path in no)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("users", "starts with '/'"),
        ("", "starts with '/'"),
        ("/a/{**}/b", "at the end only"),
        ("/a/x{*}", "plain text between slashes"),
        ("/a/{*", "plain text between slashes"),
        ("/a*b", "at most one"),
    ],
)
def test_what_is_no_path_is_refused(text: str, reason: str) -> None:
    """With the place of the text in the list."""
    with pytest.raises(ContractError, match=reason):
        Paths((text,), "paths")

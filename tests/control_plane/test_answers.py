import json

from control_plane.answers import refuse, say


def test_values_are_json_and_errors_are_sentences() -> None:
    """The same shape for every path of the API."""
    good, bad = say({"a": [1, None]}), refuse(409, "Not now.")
    assert (good.status, good.content_type, good.body) == (
        200,
        "application/json",
        b'{"a":[1,null]}',
    )
    assert isinstance(bad.body, bytes)
    assert (bad.status, json.loads(bad.body)) == (409, {"error": "Not now."})

"""How long a silent client is waited for, by what its port has shown."""

from math import inf

from meshproxy.policies.first_speaker import DOUBT, GRACE, REMEMBERED, SILENCE, FirstSpeaker


def test_nothing_is_known() -> None:
    """A moment, for the client's first byte to come; nothing is more likely than anything else."""
    speaker = FirstSpeaker()
    assert speaker.patience(0.0) == GRACE
    assert not speaker.speaks_http(0.0)


def test_a_server_that_speaks_is_dialled_at_once() -> None:
    """For as long as it is believed."""
    speaker = FirstSpeaker()
    speaker.server_spoke(100.0)
    assert speaker.patience(100.0 + REMEMBERED - 1) == 0.0
    assert speaker.patience(100.0 + REMEMBERED) == GRACE


def test_http_is_a_reason_to_wait_and_silence_one_to_wait_for_ever() -> None:
    """What a client says proves less than what a server does not."""
    speaker = FirstSpeaker()
    speaker.client_spoke_http(100.0)
    assert speaker.speaks_http(101.0)
    assert speaker.patience(101.0) == DOUBT
    speaker.client_spoke_http(101.0, SILENCE / 2)
    assert speaker.patience(101.0) == DOUBT
    speaker.client_spoke_http(102.0, SILENCE)
    assert speaker.patience(103.0) == inf
    assert speaker.patience(102.0 + REMEMBERED) == GRACE


def test_a_stray_request_does_not_silence_a_mail_server() -> None:
    """Its greeting counts for more; only its own silence revises that."""
    speaker = FirstSpeaker()
    speaker.client_spoke_http(100.0)
    speaker.server_spoke(101.0)
    speaker.client_spoke_http(102.0)
    assert speaker.patience(103.0) == 0.0
    assert not speaker.speaks_http(103.0)
    speaker.client_spoke_http(104.0, SILENCE)
    assert speaker.patience(105.0) == inf
    assert speaker.speaks_http(105.0)

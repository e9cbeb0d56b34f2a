from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog.access.token import Presented, parse_token, token_from_random
from tlog_core.errors import MalformedError

TOKEN = token_from_random(bytes(range(40)))


@given(st.binary(min_size=40, max_size=40))
def test_a_token_is_read_as_it_was_written(random: bytes) -> None:
    token = token_from_random(random)
    assert parse_token(token.text()) == token


@given(st.text() | st.from_regex(r"tlog_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n?", fullmatch=True))
def test_any_text_is_a_token_in_its_only_form_or_malformed(text: str) -> None:
    with suppress(MalformedError):
        assert parse_token(text).text() == text


@pytest.mark.parametrize("text", [TOKEN.text() + "\n", TOKEN.text()[:-1] + "B", TOKEN.text().upper(), "tlog_" * 20])
def test_the_error_of_what_is_no_token_does_not_show_it(text: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_token(text)
    assert text not in str(refused.value)


def test_no_secret_is_printed() -> None:
    shown = Presented(TOKEN.id, TOKEN.secret)
    for text in (repr(shown), str(shown), f"{[shown]}"):
        assert "secret" not in text
        assert TOKEN.secret.hex() not in text
        assert TOKEN.text()[-43:] not in text

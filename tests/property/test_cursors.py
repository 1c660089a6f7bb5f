"""Cursors of listings over HTTP: what was told is taken back as it was, and nothing else is taken for one."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from taskd.http.errors import FieldRefused
from taskd.http.paging import cursor_text, read_cursor

LISTINGS = st.sampled_from(["tasks", "workflows", "count"])


@given(LISTINGS, st.binary(max_size=64))
def test_a_cursor_comes_back_as_it_was(listing: str, cursor: bytes) -> None:
    """Also that of the last page, which is none."""
    text = cursor_text(listing, cursor)
    assert (text is None) == (cursor == b"")
    assert read_cursor(listing, text or "") == cursor


@given(
    LISTINGS, st.one_of(st.text(min_size=1, max_size=200), st.from_regex(r"[A-Za-z0-9_-]{1,200}={0,2}", fullmatch=True))
)
@example("tasks", "AAAA")
@example("tasks", "AAAAAAAA")
@example("tasks", "=")
@example("tasks", "\n")
def test_garbage_is_no_cursor(listing: str, text: str) -> None:
    """Whether or not it is base64; the refusal names the parameter."""
    with pytest.raises(FieldRefused) as refused:
        read_cursor(listing, text)
    assert refused.value.path == "$.cursor"


@given(LISTINGS, st.binary(min_size=1, max_size=64), st.data())
def test_a_cursor_that_was_changed_is_none(listing: str, cursor: bytes, data: st.DataObject) -> None:
    """A letter, the length, or padding that nobody told."""
    text = cursor_text(listing, cursor)
    assert text is not None
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("Aaz09_-= \n"))
    changed = data.draw(st.sampled_from([text[:at] + letter + text[at + 1 :], text[:at], text + letter, text + "=="]))
    assume(changed not in {text, ""})
    with pytest.raises(FieldRefused):
        read_cursor(listing, changed)


@given(st.binary(min_size=1, max_size=64))
def test_a_cursor_of_another_listing_is_none(cursor: bytes) -> None:
    text = cursor_text("tasks", cursor)
    assert text is not None
    with pytest.raises(FieldRefused):
        read_cursor("workflows", text)

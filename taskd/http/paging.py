"""What listings share: how far a page goes, where the next one begins, and which tasks are meant."""

import base64
import hashlib
from typing import Annotated, Final

import msgspec

from taskd.http.errors import FieldRefused
from taskd.text.filters import FilterRefused, read_filter
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limits import PAGE_ROWS_MAX

_CHECK_BYTES: Final = 6

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_ROWS_MAX, description="Rows of this page, at most.")]
Cursor = Annotated[str, msgspec.Meta(max_length=200, description="Of the page before; empty: the first page.")]
FilterWords = Annotated[
    str, msgspec.Meta(description='Which tasks: `queue:images state:dead name:thumb* error:"timed out" since:1h`.')
]


def read_cursor(listing: str, text: str) -> bytes:
    """Return the cursor of the page before; empty: there is none.

    Args:
        listing: What is listed; a cursor of another listing is none of this one.
        text: What ``cursor_text`` made.

    Raises:
        FieldRefused: It is none.
    """
    try:
        told = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        told = b""
    cursor = told[:-_CHECK_BYTES]
    if text and (not cursor or cursor_text(listing, cursor) != text):
        raise FieldRefused("this is no cursor of this listing; take it from the page before as it is", "$.cursor")
    return cursor


def cursor_text(listing: str, cursor: bytes) -> str | None:
    """Return a cursor as it is told; null: there is no page behind this one.

    Its last bytes follow from the others: what was cut, mistyped or made up would else pass for a position.
    """
    if not cursor:
        return None
    check = hashlib.blake2b(cursor, digest_size=_CHECK_BYTES, person=listing.encode()).digest()
    return base64.urlsafe_b64encode(cursor + check).decode().rstrip("=")


def wanted_tasks(words: str, now_ms: int) -> TaskFilter:
    """Return which tasks are meant.

    Raises:
        FieldRefused: A word is not understood; the message says where it stands.
    """
    try:
        return read_filter(words, now_ms)
    except FilterRefused as why:
        raise FieldRefused(str(why), "$.filter", column=why.column, length=why.length) from None

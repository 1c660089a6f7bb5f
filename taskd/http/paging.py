"""What listings share: how far a page goes, where the next one begins, and which tasks are meant."""

import base64
from typing import Annotated

import msgspec

from taskd.http.errors import FieldRefused
from taskd.text.filters import FilterRefused, read_filter
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.limits import PAGE_ROWS_MAX

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_ROWS_MAX, description="Rows of this page, at most.")]
Cursor = Annotated[str, msgspec.Meta(max_length=200, description="Of the page before; empty: the first page.")]
FilterWords = Annotated[
    str, msgspec.Meta(description='Which tasks: `queue:images state:dead name:thumb* error:"timed out" since:1h`.')
]


def read_cursor(text: str) -> bytes:
    """Return the cursor of the page before.

    Raises:
        FieldRefused: It is none.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise FieldRefused("this is no cursor; take it from the page before as it is", "$.cursor") from None


def cursor_text(cursor: bytes) -> str | None:
    """Return a cursor as it is told; null: there is no page behind this one."""
    return base64.urlsafe_b64encode(cursor).decode().rstrip("=") or None


def wanted_tasks(words: str, now_ms: int) -> TaskFilter:
    """Return which tasks are meant.

    Raises:
        FieldRefused: A word is not understood; the message says where it stands.
    """
    try:
        return read_filter(words, now_ms)
    except FilterRefused as why:
        raise FieldRefused(str(why), "$.filter", column=why.column, length=why.length) from None

"""Lines of data: each fits a piece and is read as it was said, whatever is in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd_protocol.limits import EMITTED_BYTES_MAX, LOG_DATA_BYTES_MAX, PROGRESS_CHARS_MAX
from taskd_protocol.streams import (
    CUT,
    LOG,
    PROGRESS,
    STDOUT,
    VALUES,
    CutLine,
    DataLine,
    LogLine,
    ProgressLine,
    ValueLine,
    decode_line,
    encode_line,
)


@pytest.mark.parametrize(
    ("stream", "line"),
    [
        (LOG, LogLine(5, "INFO", "app", "größe\n\x00 two lines", "00-1", {"a": "b"})),
        (VALUES, ValueLine(5, bytes(range(256)))),
        (PROGRESS, ProgressLine(5, 1, 3, "a third")),
        (CUT, CutLine(5, 100, 3, "rate")),
    ],
)
def test_a_line_is_read_as_it_was_said(stream: int, line: DataLine) -> None:
    encoded = encode_line(line)
    assert encoded.endswith(b"\n")
    assert encoded.count(b"\n") == 1
    assert decode_line(stream, encoded) == line


@given(st.text(st.characters(codec=None), max_size=200), st.integers(1, 2_000), st.dictionaries(st.text(), st.text()))
def test_a_record_fits_a_piece_and_keeps_its_beginning(text: str, times: int, fields: dict[str, str]) -> None:
    message = text * times
    encoded = encode_line(LogLine(0, "INFO", text, message, "", fields))
    assert len(encoded) <= LOG_DATA_BYTES_MAX
    read = decode_line(LOG, encoded)
    assert isinstance(read, LogLine)
    clean = message.encode("utf-8", "backslashreplace").decode()
    if len(message) <= 2_000:
        assert read.message == clean
    else:
        assert read.message.startswith(clean[:100])


def test_the_largest_of_the_others_fit() -> None:
    assert len(encode_line(ValueLine(1 << 50, bytes(EMITTED_BYTES_MAX)))) <= LOG_DATA_BYTES_MAX
    assert len(encode_line(ProgressLine(1 << 50, 0.1, 1e300, "\x00" * PROGRESS_CHARS_MAX))) <= LOG_DATA_BYTES_MAX


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b"\xff", b'{"at_ms": "x"}'])
def test_what_is_none_is_passed_over(line: bytes) -> None:
    assert [decode_line(stream, line) for stream in (STDOUT, LOG, VALUES, PROGRESS, CUT, 99)] == [None] * 6

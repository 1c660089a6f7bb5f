"""What a task says is shown on a terminal, and not obeyed."""

import io
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskd.cli.terminal import copy, tame, whole
from taskd.cli.waiting import bar
from taskd_protocol.streams import ProgressLine

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

SIGN = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\n", "plain\ttext\r\n"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
        ("\x1b[38:2::1:2:3mtrue", "\x1b[38:2::1:2:3mtrue\x1b[0m"),
        ("a\x1b[2Jb", f"a{SIGN}b"),
        ("a\x1b[?1049hb", f"a{SIGN}b"),
        ("a\x1b]0;title\x07b", f"a{SIGN}b"),
        ("a\x1b]52;c;c2VjcmV0\x1b\\b", f"a{SIGN}b"),
        ("a\x1bPq#0\x1b\\b", f"a{SIGN}b"),
        ("a\x1bcb", f"a{SIGN}b"),
        ("a\x1b(0b", f"a{SIGN}b"),
        ("a\x9b2Jb", f"a{SIGN}2Jb"),
        ("a\x00\x07\x7fb", f"a{SIGN * 3}b"),
        ("cut short \x1b[", f"cut short {SIGN}"),
        ("cut short \x1b", f"cut short {SIGN}"),
    ],
)
def test_a_terminal_is_shown_colours_and_signs(text: str, shown: str) -> None:
    assert tame(text) == shown


@example("\x1b[?m")
@given(st.text(alphabet=st.sampled_from("\x1b[]m;0123ABPX^_\\\x07\x9b\x9d\x00\r\nab?(%"), max_size=40))
def test_nothing_that_a_terminal_would_obey_is_left(text: str) -> None:
    left = re.sub(r"\x1b\[[0-9;:]*m", "", tame(text))
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", left)


class Screen(io.TextIOWrapper):
    """Standard output, on a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_a_pipe_gets_every_byte_and_a_terminal_what_is_text() -> None:
    data = b"\xff\x00\x1b[2Jx\n"
    for terminal, shown in ((False, data), (True, f"{SIGN}{SIGN}{SIGN}x\n".encode())):
        screen = Screen(terminal=terminal)
        copy(data, screen)
        assert screen.bytes.getvalue() == shown


class Stopped(io.RawIOBase):
    """A pipe that takes some of what it is given: its writer was stopped in the midst of it."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: "Buffer", /) -> int:
        self.taken += bytes(data)[:100]
        return min(len(bytes(data)), 100)


def test_nothing_is_lost_where_python_buffers_nothing() -> None:
    """Whatever way it is written; a stream that buffers is left as it is."""
    raw = Stopped()
    unbuffered = io.TextIOWrapper(raw, "utf-8", write_through=True)  # type: ignore[type-var]  # as Python's is then
    stream = whole(unbuffered)
    copy(b"x" * 20_000 + b"\n", stream)
    stream.write("y" * 20_000 + "\n")
    assert raw.taken == b"x" * 20_000 + b"\n" + b"y" * 20_000 + b"\n"
    screen = Screen(terminal=False)
    assert whole(screen) is screen


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (ProgressLine(0, 0.5), "[############............]  50%"),
        (ProgressLine(0, 3, 10, "pages\nread"), "[#######.................]  30% 3/10 pages read"),
        (ProgressLine(0, 20, 10), "[########################] 100% 20/10"),
        (ProgressLine(0, 1, 0), "[........................]   0% 1/0"),
    ],
)
def test_progress_is_one_short_line(line: ProgressLine, shown: str) -> None:
    assert bar(line) == shown

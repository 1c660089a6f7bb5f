"""The language of filters: what each word means, and how one that is not understood is pointed at."""

import pytest

from taskd.text.filters import CHARS_MAX, KEYS, STATES, FilterRefused, filter_text, read_filter
from taskd_protocol.filtering import TaskFilter

NOW_MS = 1_763_760_000_000
HOUR_MS = 3_600_000
ONE = "01a31000-0000-7000-8000-000000000001"
RAW = bytes.fromhex(ONE.replace("-", ""))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", TaskFilter()),
        ("  ", TaskFilter()),
        ("queue:images", TaskFilter(queue="images")),
        (
            'queue:images state:dead name:thumb* error:"timed out" since:1h',
            TaskFilter("dead", "images", "thumb*", "timed out", NOW_MS - HOUR_MS),
        ),
        ("  state:ready\tqueue:q\n", TaskFilter("ready", "q")),
        (r'error:"a \"b\" \\ c"', TaskFilter(error=r'a "b" \ c')),
        ("error:a:b", TaskFilter(error="a:b")),
        ('name:"täsk ☃"', TaskFilter(name="täsk ☃")),
        ("since:90s before:1.5s", TaskFilter(since_ms=NOW_MS - 90_000, before_ms=NOW_MS - 1_500)),
        ("since:2025-11-21", TaskFilter(since_ms=1_763_683_200_000)),
        ("since:2025-11-21T01:00+01:00", TaskFilter(since_ms=1_763_683_200_000)),
        ("before:2025-11-21T00:00:00.001Z", TaskFilter(before_ms=1_763_683_200_001)),
        ("since:9999999w", TaskFilter(since_ms=1)),
        ("priority:5", TaskFilter(priority_min=5, priority_max=5)),
        ("priority:=-5", TaskFilter(priority_min=-5, priority_max=-5)),
        ("priority:>5", TaskFilter(priority_min=6)),
        ("priority:>=5", TaskFilter(priority_min=5)),
        ("priority:<5", TaskFilter(priority_max=4)),
        ("priority:<=-5", TaskFilter(priority_max=-5)),
        ("priority:-3..3", TaskFilter(priority_min=-3, priority_max=3)),
        ("agent:ash label:zone=a key:order-42", TaskFilter(agent="ash", label="zone=a", key="order-42")),
        ("group:" + "0f" * 16, TaskFilter(group=b"\x0f" * 16)),
        (f"id:{ONE} id:{ONE.replace('-', '')}", TaskFilter(ids=[RAW, RAW])),
    ],
)
def test_words_mean(text: str, wanted: TaskFilter) -> None:
    """All of them must hold."""
    assert read_filter(text, NOW_MS) == wanted


@pytest.mark.parametrize(
    ("text", "column", "word", "reason"),
    [
        ("queue:q stat:dead", 9, "stat:dead", "did you mean state?"),
        ("zone:a", 1, "zone:a", "there are queue, state, name"),
        ("queue:q thumb", 9, "thumb", "write name:*thumb*"),
        ("state:ded", 1, "state:ded", "did you mean dead?"),
        ("state:", 1, "state:", "nothing stands after state:"),
        ('name:"" x', 1, 'name:""', "nothing stands after name:"),
        (":x", 1, ":x", "is no key"),
        ('queue:q error:"a b', 9, 'error:"a b', "a quote is not closed"),
        ('error:"a"b', 10, "b", "a space is missing"),
        ("queue:a queue:b", 9, "queue:b", "said twice"),
        ("since:soon", 1, "since:soon", "is no time; write 30m"),
        ("since:1969-01-01", 1, "since:1969-01-01", "is no time"),
        ("since:1", 1, "since:1", "is no time"),
        ("priority:high", 1, "priority:high", "is no priority; write 5"),
        ("priority:101", 1, "priority:101", "is no priority"),
        ("priority:>100", 1, "priority:>100", "is no priority"),
        ("priority:9..1", 1, "priority:9..1", "is no priority"),
        ("priority:>1..3", 1, "priority:>1..3", "is no priority"),
        ("group:00ff", 1, "group:00ff", "is no group"),
        ("group:" + "xy" * 16, 1, "group:" + "xy" * 16, "is no group"),
        ("id:7", 1, "id:7", "is not a task id"),
        ("queue:" + "q" * 257, 1, "queue:" + "q" * 257, "at most 256 characters"),
    ],
)
def test_a_word_that_is_not_understood_is_pointed_at(text: str, column: int, word: str, reason: str) -> None:
    """With its column, its length, and what would be right."""
    with pytest.raises(FilterRefused, match=f"^column {column}: ") as refused:
        read_filter(text, NOW_MS)
    why = refused.value
    assert (why.column, text[why.column - 1 :][: why.length]) == (column, word)
    assert reason in why.reason
    assert "\n" not in str(why)


def test_a_filter_has_an_end() -> None:
    """However many ids are pasted."""
    with pytest.raises(FilterRefused, match=f"at most {CHARS_MAX}"):
        read_filter("x" * (CHARS_MAX + 1), NOW_MS)
    with pytest.raises(FilterRefused, match="is not a task id"):
        read_filter("id:" + "7" * (CHARS_MAX - 3), NOW_MS)


def test_every_key_and_state_is_told_of() -> None:
    """Whoever mistypes one sees all of them."""
    for text, known in (("nonsense:1", KEYS), ("state:nonsense", STATES)):
        with pytest.raises(FilterRefused) as refused:
            read_filter(text, NOW_MS)
        assert all(word in refused.value.reason for word in known)


def test_a_filter_is_written_as_it_is_read() -> None:
    """Also what stands in quotes."""
    text = (
        r'queue:images state:dead name:thumb* error:"say \"no\"" agent:ash label:zone=a key:k priority:>=5'
        f" since:2025-11-21T00:00:00.000Z group:{'0f' * 16} id:{ONE}"
    )
    assert filter_text(read_filter(text, NOW_MS)) == text
    assert filter_text(TaskFilter()) == ""

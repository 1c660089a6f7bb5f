"""The language of filters, for whatever anybody types."""

from hypothesis import example, given
from hypothesis import strategies as st

from taskd.text.filters import KEYS, STATES, FilterRefused, filter_text, read_filter
from taskd_protocol.filtering import TaskFilter
from taskd_protocol.ids import make_task_ids

NOW_MS = 1_763_760_000_000

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
ids = st.binary(min_size=10, max_size=10).map(lambda entropy: make_task_ids(1, NOW_MS, entropy)[0])
instants = st.integers(0, 253_402_300_799_999).map(lambda ms: ms and max(ms, 1))
bounds = st.tuples(st.integers(-100, 100), st.integers(-100, 100)).map(sorted)


@st.composite
def filters(draw: st.DrawFn) -> TaskFilter:
    """Any filter that can be asked for in words."""
    low, high = draw(bounds)
    maybe = st.one_of(st.just(""), texts)
    return TaskFilter(
        draw(st.sampled_from(["", *STATES])),
        draw(maybe),
        draw(maybe),
        draw(maybe),
        draw(instants),
        draw(st.sampled_from([b"", bytes(range(16))])),
        draw(st.lists(ids, max_size=3)),
        draw(instants),
        low,
        high,
        draw(maybe),
        draw(maybe),
        draw(maybe),
    )


@given(filters())
def test_what_is_written_is_read_back(wanted: TaskFilter) -> None:
    """Whatever stands in it."""
    assert read_filter(filter_text(wanted), NOW_MS) == wanted


values = st.text(st.characters(codec="utf-8"), max_size=9)
words = st.one_of(
    st.text(max_size=60),
    st.lists(st.builds("{}:{}".format, st.sampled_from([*KEYS, "stat", ""]), values), max_size=5).map(" ".join),
)


@given(words)
@example('error:"\\')
@example("since:0000-01-01")
@example("since:9999-12-31T23:59:59-23:59")
@example("priority:٣")
@example("id:\x00")
def test_whatever_is_typed_is_read_or_pointed_at(text: str) -> None:
    """Nothing else is raised, and what is pointed at lies within the text."""
    refused: list[FilterRefused] = []
    try:
        wanted = read_filter(text, NOW_MS)
    except FilterRefused as why:
        refused.append(why)
    else:
        assert read_filter(filter_text(wanted), NOW_MS) == wanted
    for told in refused:
        assert 1 <= told.column <= len(text)
        assert 1 <= told.length <= len(text) - told.column + 1
        assert told.reason.isprintable()

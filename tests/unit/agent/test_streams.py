"""Streams: in whole lines, in order, bounded, and what is left out is counted."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from taskd.agent import streams as module
from taskd.agent.metering import BURST_BYTES, BURST_S, RATE_BYTES_PER_S
from taskd.agent.streams import SIZE_BYTES_MAX, Bounds, Streams
from taskd_protocol.limits import LOG_BYTES_UNRECORDED_MAX, LOG_DATA_BYTES_MAX
from taskd_protocol.streams import CUT, LOG, STDERR, STDOUT, CutLine
from taskd_protocol.task import LogPiece, Report
from unit.agent.making import task_id


def say(streams: Streams, data: bytes, *, token: int = 1, stream: int = STDOUT, now_ms: int = 0) -> None:
    streams.add(token, task_id(token), stream, data, at_ms=1_000 + now_ms, now_ms=now_ms)


def taken(streams: Streams) -> list[LogPiece]:
    """All that may be sent, which is recorded at once."""
    pieces: list[LogPiece] = []
    while True:
        logs, _ = streams.take()
        if logs is None:
            return pieces
        pieces += logs.pieces
        streams.recorded(sum(len(piece.data) for piece in logs.pieces))


def look(streams: Streams, times: int = 1) -> None:
    for _ in range(times):
        streams.look(lambda _: True)


def cuts(pieces: list[LogPiece]) -> list[CutLine]:
    return [msgspec.json.decode(piece.data, type=CutLine) for piece in pieces if piece.stream == CUT]


def test_what_is_said_between_two_looks_goes_together() -> None:
    streams = Streams()
    for number in range(100):
        say(streams, b"%d\n" % number)
    assert not streams.has_news
    assert streams.is_gathering
    look(streams)
    (piece,) = taken(streams)
    assert piece.data == b"".join(b"%d\n" % number for number in range(100))
    assert (piece.number, piece.at_ms) == (1, 1_000)
    assert not streams.is_gathering


def test_an_unfinished_line_waits_for_its_end_but_not_for_ever() -> None:
    streams = Streams()
    say(streams, b"one\nname? ")
    look(streams)
    assert [piece.data for piece in taken(streams)] == [b"one\n"]
    say(streams, b"and")
    look(streams, module.UNFINISHED_LOOKS - 1)
    assert taken(streams) == []
    look(streams)
    assert [piece.data for piece in taken(streams)] == [b"name? and"]


def test_a_long_text_is_cut_between_lines_and_a_line_only_where_it_must() -> None:
    streams = Streams()
    line = b"x" * 999 + b"\n"
    say(streams, line * 100 + b"y" * (2 * LOG_DATA_BYTES_MAX))
    streams.end(Report(1, task_id(1), 1, b""))
    pieces = taken(streams)
    assert b"".join(piece.data for piece in pieces) == line * 100 + b"y" * (2 * LOG_DATA_BYTES_MAX)
    assert pieces[0].data == line * (LOG_DATA_BYTES_MAX // 1_000)
    assert max(len(piece.data) for piece in pieces) <= LOG_DATA_BYTES_MAX


@given(st.integers(0, 1 << 32))
def test_every_line_below_the_limits_comes_once_and_in_order(seed: int) -> None:
    """Whatever streams are said in what pieces, and however often the connection breaks."""
    rng, streams = random.Random(seed), Streams()
    said: dict[tuple[int, int], bytes] = {}
    got: dict[tuple[int, int], dict[int, bytes]] = {}
    underway: list[int] = []
    for _ in range(rng.randrange(1, 60)):
        match rng.randrange(5):
            case 0 | 1:
                token, stream = rng.randrange(1, 4), rng.choice([STDOUT, STDERR])
                data = b"".join(rng.choice([b"a", b"bb\n", b"\n", b"c" * 5_000]) for _ in range(rng.randrange(1, 30)))
                said[token, stream] = said.get((token, stream), b"") + data
                say(streams, data, token=token, stream=stream)
            case 2:
                look(streams)
            case 3:
                logs, _ = streams.take()
                for piece in logs.pieces if logs is not None else ():
                    assert (
                        got.setdefault((piece.token, piece.stream), {}).setdefault(piece.number, piece.data)
                        == piece.data
                    )
                    underway.append(len(piece.data))
                assert sum(underway) <= LOG_BYTES_UNRECORDED_MAX
                while underway and rng.random() < 0.7:
                    streams.recorded(underway.pop(0))
            case _:
                streams.connect({}, ())
                underway.clear()
    streams.recorded(sum(underway))
    for token in (1, 2, 3):
        streams.end(Report(token, task_id(token), 1, b""))
    for piece in taken(streams):
        got.setdefault((piece.token, piece.stream), {})[piece.number] = piece.data
    assert {key: b"".join(pieces[number] for number in sorted(pieces)) for key, pieces in got.items()} == said
    assert streams.waiting_bytes == 0


def test_more_than_the_rate_is_left_out_in_whole_lines_and_counted_where_it_was() -> None:
    streams = Streams()
    line = b"x" * 1_023 + b"\n"
    say(streams, line * (BURST_BYTES // 1_024 + 100))
    say(streams, b"half")
    say(streams, b" a line\n" + line, now_ms=10)  # its beginning was left out, and so is its end
    say(streams, line, now_ms=2_000)
    streams.end(Report(1, task_id(1), 1, b""))
    pieces = taken(streams)
    kinds = [piece.stream for piece in pieces]
    assert b"".join(piece.data for piece in pieces if piece.stream == STDOUT) == line * (BURST_BYTES // 1_024 + 2)
    first, *others = cuts(pieces)
    assert (first.bytes, first.lines, first.reason) == (100 * 1_024 + len(b"half a line\n"), 101, "rate")
    assert others == []
    assert kinds.index(CUT) == len(kinds) - 2  # before the two lines that came when there was room again


def test_what_stays_at_the_rate_is_never_left_out() -> None:
    streams = Streams()
    second = (b"x" * 1_023 + b"\n") * (RATE_BYTES_PER_S // 1_024)
    for number in range(20):
        say(streams, second, now_ms=number * 1_000)
        taken(streams)
    look(streams)
    streams.end(Report(1, task_id(1), 1, b""))
    assert cuts(taken(streams)) == []


def test_more_than_is_kept_of_one_attempt_is_left_out_and_counted_at_its_end() -> None:
    streams = Streams()
    line = b"x" * (LOG_DATA_BYTES_MAX - 1) + b"\n"
    kept, said = 0, 0
    while said < SIZE_BYTES_MAX + 10 * len(line):
        say(streams, line, now_ms=said)  # slowly
        said += len(line)
        kept += sum(len(piece.data) for piece in taken(streams) if piece.stream == STDOUT)
    streams.end(Report(1, task_id(1), 1, b""))
    (cut,) = cuts(taken(streams))
    assert cut.reason == "size"
    assert SIZE_BYTES_MAX - 2 * len(line) < kept <= SIZE_BYTES_MAX
    assert kept + cut.bytes == said


def test_a_flood_is_told_of_while_it_goes_on() -> None:
    streams = Streams()
    say(streams, b"\n" * (BURST_BYTES + 1))
    taken(streams)
    look(streams, module.MARK_LOOKS - 1)
    assert cuts(taken(streams)) == []
    look(streams)
    assert [cut.bytes for cut in cuts(taken(streams))] == [1]


def test_attempts_take_turns_and_one_that_has_ended_goes_first() -> None:
    streams = Streams()
    for token in (1, 2, 3):
        say(streams, bytes(2 * LOG_DATA_BYTES_MAX), token=token)
    logs, _ = streams.take()
    assert logs is not None
    assert [piece.token for piece in logs.pieces] == [1, 2, 3]
    assert streams.end(Report(3, task_id(3), 1, b"")) is True
    logs, released = streams.take()
    assert logs is not None
    assert [piece.token for piece in logs.pieces] == [3, 1, 2]
    assert [report.token for report in released] == [3]


def test_what_an_attempt_said_that_nobody_reports_is_sent_and_forgotten() -> None:
    streams = Streams()
    say(streams, b"half")
    streams.look(lambda _: False)
    assert [piece.data for piece in taken(streams)] == [b"half"]
    assert not streams.attempts


def test_who_can_wait_is_told_for_how_long() -> None:
    streams = Streams()
    assert streams.wait_s(1, 0) == 0
    streams.add(1, task_id(1), STDOUT, bytes(BURST_BYTES + RATE_BYTES_PER_S), at_ms=0, now_ms=0, paced=True)
    assert streams.wait_s(1, 0) == 1 + LOG_DATA_BYTES_MAX / RATE_BYTES_PER_S
    assert streams.wait_s(1, 2_000) == 0
    streams.end(Report(1, task_id(1), 1, b""))
    assert sum(len(piece.data) for piece in taken(streams)) == BURST_BYTES + RATE_BYTES_PER_S


def test_what_a_worker_left_out_is_counted_too() -> None:
    streams = Streams()
    streams.note_cut(1, task_id(1), 500, 3, now_ms=0)
    say(streams, b"{}\n", stream=LOG)
    streams.end(Report(1, task_id(1), 1, b""))
    pieces = taken(streams)
    assert [piece.stream for piece in pieces] == [CUT, LOG]
    assert cuts(pieces) == [CutLine(1_000, 500, 3, "rate")]


def test_speakers_wait_while_too_much_is_not_recorded() -> None:
    streams = Streams()
    for token in range(1, 6):
        say(streams, bytes(BURST_BYTES), token=token)
    assert streams.is_full
    taken(streams)
    assert not streams.is_full


def test_an_agent_may_keep_less_of_each_attempt() -> None:
    """The rate, what may be said at once and the whole are as they were chosen."""
    line = b"x" * 1_023 + b"\n"
    streams = Streams(Bounds(bytes_per_s=64 * 1_024, bytes_max=512 * 1_024))
    say(streams, line * 300)
    kept = b"".join(piece.data for piece in taken(streams) if piece.stream == STDOUT)
    assert kept == line * (64 * BURST_S), "four seconds' worth at once"
    for second in range(1, 100):
        say(streams, line * 64, now_ms=second * 1_000)
    kept += b"".join(piece.data for piece in taken(streams) if piece.stream == STDOUT)
    assert 400 * 1_024 < len(kept) <= 512 * 1_024

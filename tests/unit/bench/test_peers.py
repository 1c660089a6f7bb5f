"""The comparison with peers: its arithmetic, its page, and what becomes of a peer that fails."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from peers import client, figures, page, plots, run, session
from peers.figures import Bar, Case, Document
from peers.interface import Adapter, Argv, Broker, Place


def case(peer: str, mode: str, *rates: float, durable: bool = False, **work: dict[str, float | int | str]) -> Case:
    runs: dict[str, list[figures.Facts]] = {name: [dict(facts)] for name, facts in work.items()}
    runs["noop"] = [{"tasks_per_s": rate} for rate in rates]
    return Case(peer=peer, mode=mode, durable=durable, runs=runs)


CASES = [
    case(
        "taskd",
        "functions",
        40_000,
        60_000,
        50_000,
        durable=True,
        crash={"acked": 900, "not_run": 0, "repeated": 2},
        fsyncs={"fsyncs_per_1000": 12.0},
        queued={"tasks_per_s": 200_000},
        roundtrip={"p50_ms": 0.5},
    ),
    case("taskd", "coroutines", durable=True),
    case("floor", "processes", 80_000, durable=True),
    case("beanstalkd", "pipelined", 70_000),
    case("beanstalkd", "durable", 2_500, durable=True),
    case(
        "celery",
        "fast",
        1_000,
        queued={"tasks_per_s": 10_000},
        crash={"acked": 1000, "not_run": 990, "repeated": 0, "error": "ConnectionError: x|y"},
    ),
    case("huey", "fast", 5_000, roundtrip={"p50_ms": 1.0}),
    case("huey", "durable", 2_000, durable=True),
]


def document(*more: Case, floor: float = 80_000) -> Document:
    cases = [case("floor", "processes", floor, durable=True) if made.peer == "floor" else made for made in CASES]
    return Document(
        date="2026-11-29T0",
        commit="abc",
        machine={"cpu": "one"},
        settings={"rounds": 3},
        cases=[*cases, *more],
    )


def test_a_figure_is_the_median_with_the_least_and_the_greatest() -> None:
    found = figures.figure(CASES[0], "noop", "tasks_per_s")
    assert found is not None
    assert (found.median, found.low, found.high) == (50_000, 40_000, 60_000)
    assert figures.figure(CASES[1], "noop", "tasks_per_s") is None


def test_the_best_comes_first_whoever_it_is() -> None:
    names = [bar.case.name for bar in figures.ranking(CASES, "noop", "tasks_per_s")]
    assert names[:3] == ["floor processes", "beanstalkd pipelined", "taskd functions"]
    least = [bar.case.name for bar in figures.ranking(CASES, "noop", "tasks_per_s", least=True)]
    assert least == names[::-1]


def test_taskd_is_held_against_the_fastest_of_each_kind() -> None:
    told = {
        (what, theirs.case.name): times
        for what, ours, theirs, times in figures.comparisons(CASES)
        if ours.case.mode == "functions"
    }
    assert told == {
        ("end to end", "huey fast"): 10.0,
        ("end to end", "huey durable"): 25.0,
        ("end to end", "celery fast"): 50.0,
        ("end to end", "beanstalkd durable"): 20.0,
        ("end to end", "beanstalkd pipelined"): pytest.approx(5 / 7),
        ("end to end", "floor processes"): 0.625,
        ("submits in bulk", "celery fast"): 20.0,
        ("one after another, p50", "huey fast"): 0.5,
    }


def test_who_runs_slower_than_he_can_is_void_as_the_machine_goes() -> None:
    """The floor runs at half of what it did: so may the others. Where it runs faster, nobody needs to."""
    slow = case("dramatiq", "fast", 2_000)
    held = {known.case.name: known for known in figures.knowns(document(slow, floor=figures.KNOWN_FLOOR / 2))}
    assert (held["celery fast"].expected, held["celery fast"].void) == (1_071 / 2, False)
    assert (held["dramatiq fast"].expected, held["dramatiq fast"].void) == (4_163 / 2, False)
    held = {known.case.name: known for known in figures.knowns(document(slow, floor=figures.KNOWN_FLOOR * 2))}
    assert held["celery fast"].expected == 1_071
    assert [name for name, known in held.items() if known.void] == ["dramatiq fast"]


def test_the_page_shows_who_wins_who_had_no_fair_run_and_what_was_not_run() -> None:
    text = "\n".join(page.text(document(case("dramatiq", "fast", 2_000), floor=figures.KNOWN_FLOOR)))
    assert (
        "| No-op tasks, end to end | beanstalkd pipelined, 70,000 /s | taskd functions, 50,000 /s | taskd func" in text
    )
    assert "| dramatiq fast (void) | 2,000 /s |" in text
    assert "| celery fast | no | 1000 | 990 | 0 |  | ConnectionError |" in text
    assert "| taskd functions | 50,000 /s | 40,000 to 60,000 |  | yes | 12 | 0 of 900 |" in text
    assert "One task after another: the slowest" not in text, "what nobody was measured at has no section"
    assert {name for name, _ in page.pictures(document())} == {"throughput.svg", "enqueue.svg", "roundtrip.svg"}


def test_a_picture_is_svg_with_bars_as_long_as_the_figures() -> None:
    found = [Bar(case("a<b", "fast"), 100.0, 90.0, 100.0), Bar(case("c", "durable", durable=True), 50.0, 50.0, 50.0)]
    root = ET.fromstring(plots.bars("Title & more", "note", found, "/s"))  # noqa: S314 - ours
    widths = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(2 * widths[1])
    fills = [bar.attrib["fill"] == "none" for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert fills == [True, False]


def test_the_ledger_counts_what_was_acknowledged_alone() -> None:
    assert session.ledger_of([0, 1, 1, 4, 7, 7], 5) == {"acked": 5, "not_run": 2, "repeated": 1}
    assert session.ledger_of([], 3) == {"acked": 3, "not_run": 3, "repeated": 0}


def test_syncs_are_counted_in_what_strace_writes() -> None:
    trace = (
        b"12 fsync(3) = 0\n12 fdatasync(4 <unfinished ...>\n13 +++ exited with 0 +++\n12 <... fdatasync resumed>) = 0\n"
    )
    assert len(session.SYNCS.findall(trace)) == 2


class Hand(Adapter):
    """A peer that does everything at once, in the client."""

    def broker(self) -> Broker:
        return Broker([], [])

    def workers(self) -> list[Argv]:
        return []

    def submit_many(self, body: str, values: list[int] | range) -> list[object]:  # type: ignore[override]
        return [getattr(self, body)(value) for value in values]

    def results(self, handles: object, within_s: float) -> list[int]:
        del within_s
        assert isinstance(handles, list)
        return handles

    def noop(self, value: int) -> int:
        return value

    def burn(self, value: int) -> int:
        return value

    def told(self, value: int) -> int:
        if value == 250:
            raise ConnectionResetError("gone")
        return value


def test_the_works_measure_what_they_say() -> None:
    hand = Hand(Place())
    assert client.noop(hand, count=700, seconds=5)["ran"] == 1_200
    assert client.noop(hand, count=10_000_000, seconds=0)["tasks"] == client.TASKS_MIN, "who is slow gets fewer"
    assert client.submitters(hand, count=700, at_once=7)["tasks"] == 700
    assert client.queued(hand, count=2_500, seconds=5)["tasks"] == 2_500
    assert client.roundtrip(hand, count=100)["trips"] == 90
    assert client.mixed(hand, count=50)["ideal_seconds"] == sum(client.mixed_times(50)) / 2e6
    said: list[client.Answer] = []
    ended = client.crash(hand, count=200, seconds=5, say=said.append)
    assert (ended["acked"], ended["error"]) == (250, "ConnectionResetError: gone")
    assert said == [{"acked_so_far": 100}, {"acked_so_far": 200}]


def test_mixed_times_are_the_same_each_time_and_in_range() -> None:
    times = client.mixed_times(300)
    assert times == client.mixed_times(300)
    low, high = client.MIXED_US
    assert low <= min(times) < max(times) <= high


def talking(words: str, tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> session.Session:
    """A session whose client is a program of one line."""
    told = {"broker": asdict(Broker([], [])), "workers": []}
    monkeypatch.setattr(session, "tell", lambda *_: told)
    made = session.Session("hand", Place(directory=str(tmp_path)), stack, traced=False)
    made.client = made._start([sys.executable, "-c", words], "client", spoken=True)
    return made


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("import time; time.sleep(60)", "not done within 0 s"),
        ("import sys; print('oh dear', file=sys.stderr)", "its client ended: oh dear"),
        ('print(\'{"failed": "it cannot"}\')', "it cannot"),
    ],
)
def test_a_client_that_fails_is_told_and_waited_for_no_longer(
    words: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within_s = 0.2 if "sleep" in words else 20.0
    with ExitStack() as stack:
        made = talking(words, tmp_path, stack, monkeypatch)
        with pytest.raises(session.Failed, match=why):
            made.ask("noop", within_s)


@pytest.mark.parametrize("why", [session.Failed("not done within 90 s"), psutil.NoSuchProcess(1)])
def test_who_fails_at_a_work_does_the_next_and_is_not_asked_for_it_again(
    why: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[list[str]] = []

    def one(_case: Case, works: list[str], _options: object) -> Iterator[tuple[str, figures.Facts]]:
        sessions.append(works)
        for work in works:
            if work == "roundtrip":
                raise why
            yield work, {"tasks_per_s": 1.0}

    monkeypatch.setattr(run, "_together", one)
    measured = Case(peer="hand", mode="fast", runs={"noop": [], "roundtrip": [], "mixed": []})
    for _ in range(2):
        run._measure(measured, list(run.EACH_ROUND), run._options([]))
    assert sessions == [["noop", "roundtrip", "mixed"], ["mixed"], ["noop", "mixed"]]
    assert {work: len(runs) for work, runs in measured.runs.items()} == {"noop": 2, "roundtrip": 0, "mixed": 2}
    assert measured.failed == {"roundtrip": str(why)}


def test_what_varies_least_is_left_out_where_time_is_short() -> None:
    """By what the last round took; who failed takes nothing. The first work stays, however long it takes."""
    took_s = {"noop": 10.0, "roundtrip": 2.0, "submitters": 3.0, "dag": 8.0, "mixed": 4.0}
    cases = [Case(peer="a", mode="fast", took_s=took_s), Case(peer="b", mode="fast", took_s=took_s)]
    assert run._too_long(cases, list(run.KEPT), 54) == []
    assert run._too_long(cases, list(run.KEPT), 53) == ["mixed"]
    assert run._too_long(cases, list(run.KEPT), 29) == ["submitters", "dag", "mixed"]
    assert run._too_long(cases, ["noop", "mixed"], 1) == ["mixed"]
    cases[0].failed = {"dag": "it cannot"}
    assert run._too_long(cases, list(run.KEPT), 46) == []


class Slow(Hand):
    """A peer whose first tasks take long: who connects, imports, and fills his caches."""

    now_s = 0.0

    def submit_many(self, body: str, values: list[int] | range) -> list[object]:  # type: ignore[override]
        self.now_s += 0.005 if self.now_s else 0.2
        return super().submit_many(body, values)


def test_who_is_slow_at_first_is_not_taken_for_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(Place())
    monkeypatch.setattr(client, "perf_counter", lambda: slow.now_s)
    found = client.noop(slow, count=2_000, seconds=0.1)
    assert (found["tasks"], found["ran"]) == (2_000, 3_000)
    assert found["seconds"] == pytest.approx(0.005)


def test_every_adapter_that_needs_no_environment_tells_what_it_is() -> None:
    for peer in ("taskd", "gearman"):
        told = session.tell(peer, Place(port=1234))
        assert json.dumps(told["broker"]).count("1234") == 1
        assert told["modes"]
        assert "crash" in json.dumps(told["works"])


def test_whose_adapter_does_not_load_is_left_out() -> None:
    with pytest.raises(session.Failed, match="nobody"):
        session.tell("nobody", Place())

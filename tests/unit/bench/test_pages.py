"""The page of figures: a function of its JSON alone, and what it says of knees is what was measured."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import curve_page
import pages
import pytest
from curve_page import Curve, Point

GOLDEN = Path(__file__).parents[2] / "golden" / "page"


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", [GOLDEN, pages.DOCS], ids=["golden", "docs"])
def test_the_page_and_its_pictures_are_what_their_json_makes(kept: Path, tmp_path: Path) -> None:
    """After a change of the page: ``python bench/pages.py``, and the same with ``--into tests/golden/page``."""
    for part in pages.PARTS:
        shutil.copy(kept / "benchmarks" / f"{part}.json", tmp_path)
        pages.take(tmp_path / "made", part, tmp_path / f"{part}.json")
    expected = {"benchmarks.md": (kept / "benchmarks.md").read_text()}
    expected |= {f"benchmarks/{name}": text for name, text in files(kept / "benchmarks").items()}
    assert files(tmp_path / "made") == expected


def test_a_part_that_is_taken_over_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    for part in pages.PARTS:
        pages.take(tmp_path, part, GOLDEN / "benchmarks" / f"{part}.json")
    assert files(tmp_path) == files(GOLDEN)
    changed = (GOLDEN / "benchmarks" / "peers.json").read_text().replace('"abc"', '"def"')
    (tmp_path / "new.json").write_text(changed)
    text = pages.take(tmp_path, "peers", tmp_path / "new.json").read_text()
    assert "taskd def." in text
    assert text.partition("## Scale")[2] == (GOLDEN / "benchmarks.md").read_text().partition("## Scale")[2]


def test_every_picture_is_well_formed_and_named_on_the_page() -> None:
    text = (GOLDEN / "benchmarks.md").read_text()
    pictures = list((GOLDEN / "benchmarks").glob("*.svg"))
    assert len(pictures) > 4
    for picture in pictures:
        ET.parse(picture)  # noqa: S314 - ours
        assert f"(benchmarks/{picture.name})" in text


def point(at: int, rate: float, *, loop: float = 0.5, loop_us: float = 10.0, fsync: float = 0.3) -> Point:
    used: dict[str, object] = {
        "cores": {"server": loop + 0.05, "agents": 0.1, "workers": 0.1, "client": 0.2},
        "loop": loop, "loop_us": loop_us, "store_us": 0.0, "tasks_per_turn": 400.0, "turn_p99_ms": 5.0,
        "stages_us": {"decode": 1.0, "decide": loop_us - 4, "encode": 1.0, "stage": 1.0, "send": 1.0},
        "fsyncs_per_1000": 1.0, "fsync_ms": 0.5, "fsync_share": fsync, "collector_share": 0.0, "bytes_each": 300.0,
    }  # fmt: skip
    per_s = {"median": rate, "min": rate, "max": rate}
    return Point(at=at, tasks=20_000, rounds=3, per_s=per_s, trips=400, p50_ms=1.0, p99_ms=2.0 + at, used=used)


def told(*points: Point) -> str:
    return " ".join(curve_page.story(Curve(name="queues", points=list(points)), cores=2))


def test_a_knee_is_where_throughput_falls_and_is_explained_by_what_was_full_and_what_grew() -> None:
    text = told(point(1, 50_000), point(10, 45_000), point(100, 30_000, loop=0.97, loop_us=32.0), point(1_000, 29_000))
    assert (
        "The knee is at 100, with 60% of the best (1): the server's loop is full (97% of a core); 32 (in place of 10)"
        in text
    )
    assert "us of the loop a task, decide +22." in text
    assert "At 1,000 it is 58% of the best (1): nothing is full: the loop uses 50% of a core" in text


def test_what_only_grows_has_its_end_told() -> None:
    text = told(point(1, 500), point(10, 3_000), point(100, 9_500, fsync=0.95), point(500, 10_000, loop=0.9))
    assert "Throughput grows until 100, where one fsync follows another (95% of the time, 0.5 ms each)." in text
    assert "knee" not in text
    assert text.endswith("p99 is 3 ms with 1, and 502 ms at most, with 500.")


def test_one_is_told_as_one() -> None:
    assert told(point(1, 50_000)).startswith("With 1 queue, ")
    assert told(point(10, 50_000)).startswith("With 10 queues, ")


def test_what_stays_has_no_knee() -> None:
    assert "After its best, at 1, it stays at 90% of that or more: no knee." in told(
        point(1, 50_000), point(10, 45_000)
    )


def test_all_cores_are_told_when_all_are_busy() -> None:
    busy = point(1, 50_000, loop=1.4)
    assert curve_page.limits(busy, cores=2) == (
        "the server's loop is full (140% of a core) and all cores are busy"
        " (server 1.45, agents 0.10, workers 0.10, client 0.20, of 2)"
    )
